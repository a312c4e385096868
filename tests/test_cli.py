"""The command graphc: every stage, its errors, its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import graphc
from graphc.cli import main
from graphc.cli.paint import paint, paint_diff, wanted
from graphc.cli.shapes import parse_bindings, parse_shape
from graphc.errors import ArgumentError
from graphc.ir.parser import parse_graph
from graphc.ir.printer import print_graph
from graphc.ir.types import tensor_type

MODELS = Path(__file__).parent / "models"
MLP, LENET = MODELS / "mlp.py", MODELS / "lenet.py"
SHAPE = "x=f32[64,784]"


class Run:
    """What a command printed and how it ended."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = self.capsys.readouterr()
        return status, out, err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


def command(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "graphc", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, **options)


# -- stages ----------------------------------------------------------------------------------


EXPECTED = {
    "trace": ["graph @net(", "where C == 784", "%hidden.weight: f32[32", "mlp.py:14 Net.hidden"],
    "grad": ["graph @net_gradient(", "return %4, "],
    "canonical": ["graph @net"],
    "hoist": ["graph @net"],
    "fuse": ["= fused ", "body = graph @body(", "# note "],
    "plan": ["plan @net", "B=64: arena ", "without reuse)", "launches"],
    "lower": ["kernel @k0_", "for i0 in 0..n0:", "sum over r0 in 0..n1:"],
    "kernel": ["kernel @k0_", "in begin..end"],
    "source": ["def kernel(buffers, sizes, begin, end, error):"],
    "llvm": ["define", "; k0 matmul_add_relu"],
    "asm": ["kernel", ".text"],
}


@pytest.mark.parametrize("stage", EXPECTED)
def test_stages_of_an_mlp(run: Run, stage: str) -> None:
    chosen = ["--kernel", "k1"] if stage in ("kernel", "source", "asm") else []
    status, out, err = run("dump", f"{MLP}:net", "--shape", SHAPE, "--stage", stage)
    assert (status, err) == (0, "")
    for text in EXPECTED[stage]:
        assert text in out, out[:2000]
    if chosen:
        _, one, _ = run("dump", f"{MLP}:net", "--shape", SHAPE, "--stage", stage, *chosen)
        assert 0 < len(one) < len(out)


def test_stages_of_lenet(run: Run) -> None:
    stages = "trace,grad,canonical,fuse,plan,lower,kernel,source"
    status, out, err = run("dump", f"{LENET}:net", "--stage", stages, "--bind", "B=7")
    assert (status, err) == (0, "")
    for stage in stages.split(","):
        assert f"# ---- {stage} ----" in out
    assert "conv2d" not in out or "conv " in out
    assert "max_pool" in out and "B=7: arena" in out
    assert "lenet.py:" in out and "net.0" not in out.split("conv")[0]


def test_what_runs_once_is_shown_apart(run: Run, tmp_path: Path) -> None:
    (tmp_path / "norm.py").write_text(
        "from graphc.gluon import nn\n"
        "net = nn.HybridSequential()\n"
        "net.add(nn.Dense(4, in_units=3), nn.BatchNorm(in_channels=4))\n"
        "net.initialize()\n"
    )
    target = f"{tmp_path / 'norm.py'}:net"
    status, out, _ = run("dump", target, "--shape", "f32[2,3]", "--stage", "hoist,plan")
    assert status == 0
    once, _, each = out.partition("graph @net(")
    assert "runs once" in once and "rsqrt" in once and "matmul" not in once
    assert "rsqrt" not in each and "%prepared0: f32[4, 3]" in each
    assert "    0  matmul_add -> " in each and "    1  " not in each


def test_a_training_step(run: Run) -> None:
    arguments = ("--shape", "f32[64,784]", "--shape", "i32[64]", "--stage", "trace,plan")
    status, out, err = run("dump", f"{MLP}:step", *arguments)
    assert (status, err) == (0, "")
    assert out.count("  update %") == 4 and "in place of" in out


def test_a_function_differentiates_by_the_parameters_it_refers_to(run: Run) -> None:
    arguments = ("--shape", SHAPE, "--shape", "label=i32[64]", "--stage", "grad")
    status, out, _ = run("dump", f"{MLP}:loss", *arguments)
    assert status == 0
    (results,) = [line for line in out.splitlines() if line.startswith("  return")]
    assert results.count("%") == 1 + 4


@pytest.mark.parametrize("given", [["--shape", "data=f32[64,784]"], ["--shape", "f32[64,784]"]])
def test_a_symbol_gets_its_parameters_shapes_from_its_data(run: Run, given: list[str]) -> None:
    stages = ["--stage", "trace,grad,plan", "--bind", "B=100"]
    status, out, err = run("dump", f"{MLP}:symbol", *given, *stages)
    assert (status, err) == (0, "")
    assert "graph @symbol(" in out
    for text in ("%data: f32[B, 784]", "%fc1_weight: f32[32, 784]", "%bn_moving_var: f32[32]"):
        assert text in out
    assert "mlp.py:49 fc1" in out
    gradients = out[out.index("graph @symbol_gradient(") : out.index("plan @symbol")]
    results = gradients[gradients.rindex("return ") :].split(",")
    # The output, and the gradient of every parameter that there is one of: gamma is fixed at 1.
    assert len(results) == 1 + len(["fc1_weight", "fc1_bias", "bn_beta", "fc2_weight", "fc2_bias"])
    assert "plan @symbol_gradient B=100: arena " in out


def test_a_bound_symbol_has_its_shapes(run: Run) -> None:
    status, out, err = run("dump", f"{MLP}:executor", "--stage", "trace", "--train")
    assert (status, err) == (0, "")
    assert "graph @executor(" in out and "update %bn_moving_mean" in out


@pytest.mark.parametrize("example", ['{"b": nd.ones((2, 3))}', "lambda: [nd.ones((2, 3))]"])
def test_a_symbol_with_example_inputs(run: Run, tmp_path: Path, example: str) -> None:
    path = tmp_path / "model.py"
    text = "from graphc import nd, sym\nnet = sym.exp(sym.var('b'))\nexample_inputs = "
    path.write_text(text + example)
    status, out, err = run("dump", f"{path}:net", "--stage", "trace")
    assert (status, err) == (0, "")
    assert "graph @net(%b: f32[B, C])" in out


def test_a_plain_function_and_example_inputs(run: Run) -> None:
    status, out, _ = run("dump", f"{MLP}:gelu", "--stage", "trace")
    assert status == 0 and "graph @gelu(%x0: f32[B, C])" in out


def test_a_function_that_makes_a_net(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "factory.py"
    path.write_text(
        "from graphc.gluon import nn\n"
        "def net():\n"
        "    made = nn.HybridSequential()\n"
        "    made.add(nn.Dense(3))\n"
        "    return made\n"
    )
    status, out, _ = run("dump", f"{path}:net", "--shape", "x=f32[4,7]", "--stage", "trace")
    assert status == 0
    assert "graph @net(" in out
    assert "%0.weight: f32[3, 7]" in out


def test_graph_files_go_through_the_same_stages(run: Run, tmp_path: Path) -> None:
    arguments = ("--shape", SHAPE, "--stage", "trace,fuse", "--output", tmp_path)
    status, out, _ = run("dump", f"{MLP}:net", *arguments)
    assert status == 0
    names = [Path(line).name for line in out.splitlines()]
    assert names == ["net.trace.graph", "net.fuse.graph"]
    plans = []
    for name in names:
        text = (tmp_path / name).read_text()
        assert print_graph(parse_graph(text)) in text
        status, out, _ = run("dump", tmp_path / name, "--stage", "plan", "--bind", "B=64")
        assert status == 0
        plans.append(out)
    assert plans[0] == plans[1]


def test_kernels_by_name_and_by_part(run: Run) -> None:
    arguments = ("dump", f"{MLP}:net", "--shape", SHAPE, "--stage", "lower", "--kernel")
    assert run(*arguments, "matmul_add")[1].count("kernel @") == 1
    assert run(*arguments, "matmul")[1].count("kernel @") == 2
    assert run(*arguments, "k0", "--kernel", "k1")[1].count("kernel @") == 2


def test_nominal_processors_give_the_same_listing_everywhere(run: Run) -> None:
    narrow, wide = (
        run("dump", f"{MLP}:gelu", "--stage", "kernel", "--target", name)[1]
        for name in ("x86-64-v3", "x86-64-v4")
    )
    assert ": 8]" in narrow and ": 16]" in wide and narrow != wide


def test_cuda_kernels_from_any_machine(run: Run) -> None:
    arguments = ("dump", f"{MLP}:gelu", "--target", "cuda:sm_90", "--stage")
    kernel, source, ptx = (run(*arguments, stage)[1] for stage in ("kernel", "source", "ptx"))
    assert "block = int64(cuda.blockIdx.x)" in source
    assert "for thread in 0..256 thread:" in kernel
    assert ".target sm_90" in ptx and ".visible .entry" in ptx and "ld.global.v4" in ptx
    everything = run(*arguments, "all")[1]
    assert "// ---- ptx" in everything and "---- asm" not in everything


# -- diff, dot, output -----------------------------------------------------------------------


def test_diff_of_each_pass(run: Run) -> None:
    status, out, _ = run("dump", f"{MLP}:net", "--shape", SHAPE, "--diff")
    assert status == 0
    assert "--- trace\n+++ canonical\n" in out and "--- hoist\n+++ fuse\n" in out
    assert "+  %0 = fused" in out


def test_diff_of_two_stages(run: Run) -> None:
    status, out, _ = run("dump", f"{MLP}:net", "--shape", SHAPE, "--diff", "trace,grad")
    assert status == 0 and out.startswith("--- trace\n+++ grad\n")


def test_dot(run: Run) -> None:
    arguments = ("--shape", SHAPE, "--stage", "fuse", "--dot")
    status, out, _ = run("dump", f"{MLP}:net", *arguments)
    assert status == 0
    assert out.startswith('digraph "net" {') and out.rstrip().endswith("}")
    assert out.count("{") == out.count("}") and 'subgraph "cluster%0/"' in out


def test_dot_quotes_hostile_names(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "g.graph"
    file.write_text('graph @g(%"\\"]; evil [": f32[3])\n  %0 = exp %"\\"]; evil [" : f32[3]\n'
                    "  return %0\n")  # fmt: skip
    status, out, _ = run("dump", file, "--stage", "trace", "--dot")
    assert status == 0 and "\n  evil" not in out and "; evil [shape" not in out


# -- errors ----------------------------------------------------------------------------------


ERRORS = [
    ((f"{MLP}:symbol",), 1, ["symbol (data, fc1_weight,", "not known", "--shape data=f32[...]"]),
    ((f"{MLP}:symbol", "--shape", "dta=f32[2,3]"), 1, ["symbol has no variable 'dta'", "'data'?"]),
    (
        (f"{MLP}:symbol", "--shape", "data=f32[2,3]", "--shape", "fc1_weight=f32[3,3]"),
        1,
        ["fc1: its weight 'fc1_weight' has shape (3, 3)", "mlp.py:49 fc1"],
    ),
    ((f"{MLP}:nett",), 1, ["defines no 'nett'. Did you mean 'net'?"]),
    ((f"{MODELS}/mpl.py:net",), 1, ["there is no file", "Did you mean 'mlp.py'?"]),
    ((f"{MLP}",), 1, ["does not say which object", "mlp.py:net"]),
    (("net",), 1, ["neither a Python object nor a graph file"]),
    ((f"{MLP}:net",), 1, ["the shapes of the arguments of net (x) are not known", "--shape x="]),
    ((f"{MLP}:number",), 1, ["number is a int, not a Block, a Symbol"]),
    ((f"{MLP}:net.hiden",), 1, ["has no 'hiden'"]),
    ((f"{MLP}:net", "--shape", "y=f32[2,3]"), 1, ["no argument 'y'", "Its arguments are x."]),
    ((f"{MLP}:net", "--shape", "x=f32(2,3)"), 1, ["is not a shape", "x=f32[64,1,28,28]"]),
    ((f"{MLP}:net", "--shape", "x=float33[2]"), 1, ["--shape 'x=float33[2]': there is no dtype"]),
    ((f"{MLP}:add", "--shape", "a=f32[2]"), 1, ["does not say what 'b' of add is"]),
    ((f"{MLP}:add", "--shape", "a=f32[2]", "--shape", "b=f32[3]"), 1, ["do not broadcast"]),
    ((f"{MLP}:add", *["--shape", "f32[2]"] * 3), 1, ["takes 2 arguments, --shape gives more"]),
    ((f"{MLP}:branches", "--shape", "x=f32[2]"), 1, ["a condition", "mlp.py:"]),
    ((f"{MLP}:divides", "--shape", "x=f32[2]"), 1, ["mlp.py:45", "ZeroDivisionError"]),
    ((f"{MLP}:uninitialized", "--shape", "x=f32[2,3]"), 1, ["initialize"]),
    ((f"{MLP}:gelu", "--stage", "plan", "--bind", "Z=3"), 1, ["no size 'Z'", "sizes are B, C"]),
    ((f"{MLP}:gelu", "--stage", "plan", "--bind", "B=x"), 1, ["--bind 'B=x' does not give a size"]),
    ((f"{MLP}:gelu", "--stage", "source", "--kernel", "conv"), 1, ["no kernel is called conv"]),
    ((f"{MLP}:gelu", "--stage", "fuss"), 2, ["no stage 'fuss'. Did you mean 'fuse'?"]),
    ((f"{MLP}:gelu", "--stage", ","), 2, ["names no stage"]),
    ((f"{MLP}:gelu", "--diff", "trace"), 2, ["--diff takes two stages"]),
    ((f"{MLP}:gelu", "--diff", "trace,fuss"), 2, ["no stage 'fuss'"]),
    ((f"{MLP}:gelu", "--dot", "--stage", "plan"), 2, ["--dot draws graphs"]),
    ((f"{MLP}:gelu", "--output", f"{MLP}/x"), 1, ["cannot write to"]),
    ((f"{MLP}:gelu", "--target", "z80"), 1, ["no target 'z80'", "cuda:sm_90"]),
    ((f"{MLP}:gelu", "--target", "cuda:sm_9"), 1, ["Did you mean 'cuda:sm_90'?"]),
    ((f"{MLP}:gelu", "--stage", "ptx"), 2, ["for this target: it is CUDA's"]),
    ((f"{MLP}:gelu", "--target", "cuda:sm_90", "--stage", "asm"), 2, ["from --stage ptx"]),
]


@pytest.mark.parametrize(("arguments", "status", "texts"), ERRORS, ids=range(len(ERRORS)))
def test_errors(run: Run, arguments: tuple[str, ...], status: int, texts: list[str]) -> None:
    found, out, err = run("dump", *arguments)
    assert found == status, err
    assert out == "" and "Traceback" not in err
    for text in texts:
        assert text in err, err


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("x = 1\ny = x +\n", "SyntaxError"),
        ("import no_such_module_at_all\n", ":1: ModuleNotFoundError"),
        ("import sys\nsys.exit(3)\n", "sys.exit(3)"),
        ("def f(:", "SyntaxError"),
        ("raise ValueError('two\\nlines')\n", ":1: ValueError: two"),
    ],
)
def test_files_that_do_not_load(run: Run, tmp_path: Path, source: str, text: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(source)
    status, out, err = run("dump", f"{file}:net")
    assert status == 1 and text in err and out == "" and "broken.py" in err


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"graph @g(%x: f32[3])\n  %0 = expp %x : f32[3]\n", "g.graph, line 2, column 8: there is"),
        (b"graph @g(%x: f32[3])\n", "expected a statement"),
        (b"\xff\xfe\x00", "is not a text file"),
        (b"import os; os._exit(9)", "expected 'graph'"),
    ],
)
def test_graph_files_with_faults(run: Run, tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "g.graph"
    file.write_bytes(content)
    status, _, err = run("dump", file)
    assert status == 1 and text in err


def test_a_plan_of_a_file_needs_sizes(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "g.graph"
    file.write_text("graph @g(%x: f32[B, H])\n  %0 = exp %x : f32[B, H]\n  return %0\n")
    status, _, err = run("dump", file, "--stage", "plan")
    assert status == 1 and "needs a value for B, H" in err and "--bind B=64,H=64" in err
    status, out, _ = run("dump", file, "--stage", "plan", "--bind", "B=2", "--bind", "H=3")
    assert status == 0 and "plan @g B=2 H=3: arena 0 B" in out


def test_gradients_of_integers_are_an_error(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "g.graph"
    file.write_text("graph @g(%x: i32[3])\n  %0 = add %x, %x : i32[3]\n  return %0\n")
    status, _, err = run("dump", file, "--stage", "grad")
    assert status == 1 and "g has no gradient" in err


# -- the command itself ----------------------------------------------------------------------


def test_help_has_examples() -> None:
    done = command("--help")
    assert done.returncode == 0 and "examples:" in done.stdout and "exit status" in done.stdout
    done = command("dump", "--help")
    assert done.returncode == 0 and "examples:" in done.stdout and "--shape" in done.stdout


@pytest.mark.parametrize("arguments", [(), ("dmup",), ("dump",), ("cache",), ("cache", "empty")])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = command(*arguments)
    assert done.returncode == 2 and "usage: graphc" in done.stderr and done.stdout == ""


def test_a_process_prints_plain_text_to_a_pipe() -> None:
    done = command("dump", f"{MLP}:net", "--shape", SHAPE, "--stage", "trace,fuse,plan")
    assert done.returncode == 0 and done.stderr == ""
    assert "\033" not in done.stdout and done.stdout.isascii()
    again = command("dump", f"{MLP}:net", "--shape", SHAPE, "--stage", "trace,fuse,plan")
    assert again.stdout == done.stdout


def test_a_reader_that_has_enough_is_no_error() -> None:
    line = f"{sys.executable} -m graphc dump {LENET}:net --stage all --kernel conv | head -1"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("# ---- trace") and done.stderr == ""


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    terminal: object = Terminal()
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wanted(terminal)  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wanted(terminal)  # type: ignore[arg-type]
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not wanted(terminal)  # type: ignore[arg-type]
    assert not wanted(sys.stderr) or sys.stderr.isatty()


def test_colour_adds_nothing_else() -> None:
    import re

    text = 'graph @g(%x: f32[2])  # B\n  %0 = f %x {a="%1"} : f32[2]\n'
    coloured = paint(text)
    assert coloured != text and re.sub(r"\033\[\d*m", "", coloured) == text
    diff = "--- a\n+++ b\n-x\n+y\n z\n"
    assert re.sub(r"\033\[\d*m", "", paint_diff(diff)) == diff


@pytest.mark.parametrize("training", [[], ["--train"]])
def test_profile_of_a_net(run: Run, tmp_path: Path, training: list[str]) -> None:
    trace = tmp_path / "trace.json"
    arguments = [f"{MLP}:net", "--shape", SHAPE, "--repeats", 3, "--trace", trace, *training]
    status, out, err = run("profile", *arguments, "--no-limits")
    assert (status, err) == (0, "")
    head, first, *_, total, where = out.splitlines()
    assert head.split()[-1] == "launch" and total.endswith("all launches, each once")
    assert first.split()[6] == "3" and "net" in first and "mlp.py:14 Net.hidden" in first
    assert str(trace) in where
    assert len(json.loads(trace.read_text())["traceEvents"]) == 3 * (len(out.splitlines()) - 3)


PROFILE_ERRORS = [
    (("step.graph",), 1, ["'step.graph' is no Python object", "lenet.py:net"]),
    ((f"{MLP}:net", "--shape", SHAPE, "--repeats", "0"), 2, ["'0' is no number from 1"]),
    ((f"{MLP}:net", "--shape", SHAPE, "--no-limits", "--trace", f"{MLP}/x"), 1, ["cannot write"]),
    ((f"{MODELS}/plain.py:net",), 1, ["ran no compiled program", "HybridBlock"]),
]


@pytest.mark.parametrize(("arguments", "status", "texts"), PROFILE_ERRORS, ids=range(4))
def test_errors_of_profile(
    run: Run, arguments: tuple[str, ...], status: int, texts: list[str]
) -> None:
    found, _, err = run("profile", *arguments)
    assert found == status and "Traceback" not in err
    for text in texts:
        assert text in err, err


def test_profile_measures_the_machine_and_names_the_line_of_a_function(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "model.py"
    path.write_text("import graphc\nfrom graphc import nd\n\ndouble = lambda x: x + x\n")
    status, out, _ = run("profile", f"{path}:double", "--shape", "x=f32[10,10]", "--repeats", 1)
    assert status == 0
    line = out.splitlines()[1]
    assert line.split()[5].endswith("%") and line.endswith("model.py:4")


def test_info(run: Run) -> None:
    status, out, _ = run("info")
    assert status == 0
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert set(rows) >= {"graphc", "python", "numpy", "numba", "llvmlite", "cpu", "threads", "gpu"}
    assert rows["threads"].startswith(str(graphc.config.current().threads))
    assert "bits" in rows["vectors"] and "kernels" in rows


def test_cache(run: Run, tmp_path: Path) -> None:
    with graphc.options(cache_dir=str(tmp_path)):
        status, out, _ = run("cache", "size")
        assert status == 0 and out.startswith("0 entries in ")
        graphc.compile(lambda x: x * 2.0 + 1.0)(graphc.nd.ones((3,)))
        _, listed, _ = run("cache", "list")
        assert len(listed.splitlines()) >= 2 and "days ago" in listed
        _, cleared, _ = run("cache", "clear")
        assert cleared.startswith("removed ")
        assert run("cache", "size")[1].startswith("0 entries in ")


def test_shapes_and_bindings() -> None:
    assert parse_shape("x=f32[2, 3]") == ("x", tensor_type("float32", (2, 3)))
    assert parse_shape("[]") == ("", tensor_type("float32", ()))
    assert parse_shape("label=i32[7,]") == ("label", tensor_type("int32", (7,)))
    assert parse_bindings(["B=64", "H=28, W=3"]) == {"B": 64, "H": 28, "W": 3}
    for text in ("x=f32[B]", "x=f32[-1]", "x=f32[1", "f32", "x==f32[1]", "x=f32[" + "9" * 50 + "]"):
        with pytest.raises(ArgumentError):
            parse_shape(text)
    for text in ("B", "B=", "=3", "B=-1", "B=1.5", "B=" + "9" * 50):
        with pytest.raises(ArgumentError):
            parse_bindings([text])
