"""What describes an exported library: a header for C, and the same for programs as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.codegen.export.layout import CODES, CPU, MEANINGS, Argument, Export, Status
from graphc.codegen.export.tensors import shown
from graphc.ir.dim import SizeExpr
from graphc.ir.target import Target

FORMAT_VERSION = 1
"""Of the description; a change that a reader has to know of makes a new one."""

_DLPACK = f"""\
/* DLPack's own header is used where it is at hand. */
#if !defined(DLPACK_DLPACK_H_) && defined(__has_include)
#if __has_include(<dlpack/dlpack.h>)
#include <dlpack/dlpack.h>
#endif
#endif
#if !defined(DLPACK_DLPACK_H_) && !defined(GRAPHC_DLPACK)
#define GRAPHC_DLPACK
enum {{ kDLCPU = {CPU} }};
enum {{
  kDLInt = {CODES["i"]},
  kDLUInt = {CODES["u"]},
  kDLFloat = {CODES["f"]},
  kDLBool = {CODES["b"]}
}};
typedef struct {{
  int32_t device_type;
  int32_t device_id;
}} DLDevice;
typedef struct {{
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
}} DLDataType;
typedef struct {{
  void *data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape;
  int64_t *strides; /* null: row-major and contiguous */
  uint64_t byte_offset;
}} DLTensor;
#endif
"""

_RUN = """\
/* Runs the model on tensors in memory of the caller's, outputs too. Returns 0, or what went wrong;
   nothing that a caller can see has changed then but, for {value}, the outputs. Tensors are
   row-major and contiguous; outputs share memory with no other. Threads may call at once. */
int32_t {name}_run(const DLTensor *inputs, int32_t n_inputs, DLTensor *outputs, int32_t n_outputs);

/* Fills in the outputs of such a call but for their data: their shape points at room for {ndim}
   numbers. The inputs need no data. */
int32_t {name}_infer(
    const DLTensor *inputs, int32_t n_inputs, DLTensor *outputs, int32_t n_outputs);

/* What went wrong in this thread's last call that failed. */
const char *{name}_error(void);

/* Threads of a call, its caller's included; at first as many as there are processors. They change
   no result. A second call at the same time runs on its own thread alone. */
int32_t {name}_set_threads(int32_t threads);

/* Ends the threads and gives back memory that is kept for calls to come. Nothing may be running. */
void {name}_release(void);
"""
_LOAD = """\

/* Reads the weights from {file}; before the first run. */
int32_t {name}_load(const char *path);
"""


def header(export: Export, processor: str, version: str, weights_file: str | None) -> str:
    """Return the text of the header.

    Parameters
    ----------
    export : Export
    processor, version : str
        What it was compiled for, and by which graphc.
    weights_file : str or None
        Name of the file of weights, if there is one.
    """
    name, upper = export.name, export.name.upper()
    ranks = [argument.type.ndim for argument in export.outputs]
    lines = [
        f"/* {name}: a model compiled by graphc {version} for {processor}.",
        *_listed("inputs", export.inputs),
        *_listed("outputs", export.outputs),
        "*/",
        f"#ifndef GRAPHC_{upper}_H",
        f"#define GRAPHC_{upper}_H",
        "#include <stdint.h>",
    ]
    statuses = [f"  {upper}_{s.name} = {int(s)}, /* {MEANINGS[s]} */" for s in Status]
    run = _RUN.format(name=name, value=f"{upper}_{Status.VALUE.name}", ndim=max(ranks, default=0))
    load = _LOAD.format(name=name, file=weights_file) if weights_file else ""
    return "\n".join(
        [
            *lines, _DLPACK, "#ifdef __cplusplus", 'extern "C" {', "#endif", "", "enum {",
            *statuses, "};", "", run + load, "#ifdef __cplusplus", "}", "#endif", "#endif", "",
        ]
    )  # fmt: skip


def _listed(what: str, arguments: Sequence[Argument]) -> list[str]:
    return [f"   {what}:"] + [
        f"     {index}: {argument.name}: {shown(argument.type)}"
        for index, argument in enumerate(arguments)
    ]


def description(export: Export, target_name: str, target: Target, version: str) -> dict[str, Any]:
    """Return what a program may want to know of a library, for JSON."""
    functions = ["run", "infer", "error", "set_threads", "release"]
    functions += ["load"] if export.header else []
    return {
        "format": FORMAT_VERSION,
        "name": export.name,
        "graphc": version,
        "target": {
            "name": target_name, "triple": target.triple, "cpu": target.cpu,
            "features": target.features,
        },
        "inputs": [_described(argument) for argument in export.inputs],
        "outputs": [_described(argument) for argument in export.outputs],
        "constraints": [f"{fact.left} == {fact.right}" for fact in export.constraints],
        "functions": {function: f"{export.name}_{function}" for function in functions},
        "statuses": {status.name: int(status) for status in Status},
    }  # fmt: skip


def _described(argument: Argument) -> dict[str, Any]:
    sizes = [str(d) if isinstance(d, SizeExpr) else int(d) for d in argument.type.shape]
    return {"name": argument.name, "dtype": argument.type.dtype.name, "shape": sizes}
