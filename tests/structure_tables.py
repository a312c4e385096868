"""The rules of the house as tables, edited by hand; `test_structure` checks them."""

from __future__ import annotations

# Room -> its files and packages in import order: each may import those before it. The files of a
# package in the row may import each other, as long as no circle results.
ORDER = {
    "base": "errors config lazy",
    "ir": (
        "polynomial size_expr size_bounds dim sizes types operand graph operations scalar_math "
        "expr intrinsics loop statements lowering target op pattern scanner signature scalar_text "
        "scalar_slope evaluate races lockstep ops plan table verify text printer kernel_printer "
        "parser interp"
    ),
    "passes": (
        "canonicalize row_updates fold winograd winograd_training pooled_gradients layout hoist "
        "differentiate partition fuse lower column_sums likeness schedule polynomials "
        "elementary trigonometry expand emulate_warps emulate_threads emulate memory manager"
    ),
    "codegen": (
        "cpu cuda targets sharing python_text python_engine llvm_types llvm_builder llvm_extremes "
        "llvm_values llvm_conversions llvm_transposition llvm_memory llvm_kernel llvm_cuda "
        "llvm_indices llvm_compile numba_lowering numba_engine numba_cuda_names numba_cuda "
        "numba_nvvm llvm_engine python_kernels cache counters dispatch_layout native dispatch_ir "
        "python_call dispatch cuda_code compiler export"
    ),
    "runtime": (
        "random threads locks limits profile blocks bound program device staging checks driver "
        "exclusive cuda device_program saved"
    ),
    "frontend": (
        "formats context tree trace build execute memory array prepared tape tracer compiled "
        "traced transfer jit export_library random_key assign ops backward numpy_calls "
        "ndarray_methods ndarray "
        "creation source scalar_source scalar kernel_source kernel sampling files autograd symbol "
        "functional numeric initializer lr_scheduler optimizer metric_base metric gluon"
    ),
    "cli": "cli __main__",
}
# Rooms whose files lie in graphc/ itself rather than in a folder of the room's name.
AT_TOP = ("base", "cli")
# Modules and packages of graphc/ that only re-export names, for users; "" is graphc/__init__.py.
PUBLIC = (
    "", "autograd", "base", "context", "gluon", "init", "initializer", "lr_scheduler", "metric",
    "nd", "ndarray", "np", "optimizer", "random", "sym", "symbol",
)  # fmt: skip
# Room -> the rooms above it.
MAY_IMPORT = {
    "base": (),
    "ir": ("base",),
    "passes": ("base", "ir"),
    "codegen": ("base", "ir"),
    "runtime": ("base", "ir", "codegen"),
    "frontend": ("base", "ir", "passes", "codegen", "runtime"),
    "public": ("base", "ir", "passes", "codegen", "runtime", "frontend"),
    "cli": ("base", "ir", "passes", "codegen", "runtime", "frontend", "public"),
}
LOADER = "graphc.lazy"
# Imported at the top of a file: package -> rooms.
EAGER = {"numpy": ("ir", "passes", "codegen", "runtime", "frontend", "public", "cli")}
# Reached through the loader only, as `lazy.numba()`, `lazy.llvmlite_binding()`: package -> rooms.
LAZY = {
    "numba": ("codegen", "runtime"),
    "llvmlite": ("codegen", "runtime"),
    "networkx": ("passes", "cli"),
    "cloudpickle": ("frontend",),
    "cuda": ("codegen", "runtime"),
    "matplotlib": ("frontend", "cli"),
}
# Modules of graphc that only the loader imports; these may import the packages of LAZY at the top.
LOADED_LAZILY: tuple[str, ...] = ()

MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_COLUMNS = 500, 80, 100
# Written in pieces, so that this file keeps the rules it checks.
MACHINE_FOLDERS = ("work", "tmp", "root")
REGISTRY_HOSTS = ("pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".org", "npmjs" + ".com",
                  "deb.debian" + ".org")  # fmt: skip
