"""Parameters by name: those a Block makes itself, and what ``collect_params`` returns."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from graphc.errors import ArgumentError, FileFormatError, UnknownNameError, nearest, user_location
from graphc.frontend.formats.arrays import load_arrays, save_arrays
from graphc.frontend.gluon.constant import Constant
from graphc.frontend.gluon.parameter import Parameter
from graphc.frontend.gluon.placement import devices_of


class ParameterDict(Mapping[str, Parameter]):
    """Parameters by name.

    Where a Block collects Parameters the names are structural, ``"0.weight"``; each Parameter is
    also found under its full name, ``"dense0_weight"``.

    Parameters
    ----------
    prefix : str
        Put before the names of Parameters that ``get`` makes.
    shared : ParameterDict, optional
        Where ``get`` looks before it makes a Parameter.
    """

    def __init__(self, prefix: str = "", shared: ParameterDict | None = None) -> None:
        self._prefix = prefix
        self._shared = shared
        self._params: dict[str, Parameter] = {}

    def __repr__(self) -> str:
        lines = [f"{self._prefix or 'Parameters'} ("]
        lines += [f"  {name}: {parameter!r}" for name, parameter in self._params.items()]
        return "\n".join([*lines, ")"])

    @property
    def prefix(self) -> str:
        """What is put before the names of new Parameters."""
        return self._prefix

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)

    def __contains__(self, name: object) -> bool:
        return self._find(name) is not None

    def __getitem__(self, name: str) -> Parameter:
        found = self._find(name)
        if found is None:
            known = [*self._params, *(p.name for p in self._params.values())]
            raise UnknownNameError(
                f"there is no parameter {name!r}.{nearest(str(name), known)}",
                remedy=f"There are {', '.join(self._params) or 'none'}.",
                where=user_location(),
            )
        return found

    def _find(self, name: object) -> Parameter | None:
        if name in self._params:
            return self._params[name]  # type: ignore[index]
        return next((p for p in self._params.values() if p.name == name), None)

    def add(self, name: str, parameter: Parameter) -> None:
        """Put in a Parameter under a name."""
        self._params[name] = parameter

    def get(  # type: ignore[override]
        self, name: str, default: Any = None, **kwargs: Any
    ) -> Parameter:
        """Return the Parameter ``prefix + name``, made with ``kwargs`` if there is none.

        Raises
        ------
        ArgumentError
            When there is one already with another shape or type.
        """
        full = self._prefix + name
        found = self._own_or_shared(full)
        if found is None:
            found = self._params[full] = Parameter(full, **kwargs)
            return found
        self._params[full] = found
        if kwargs.get("shape") is not None:
            asked = Parameter(full, shape=kwargs["shape"]).shape or ()
            known = found.shape
            clash = known is not None and (
                len(known) != len(asked)
                or any(a and b and a != b for a, b in zip(known, asked, strict=True))
            )
            if clash:
                raise ArgumentError(
                    f"parameter {full} is shared and has shape {known}, not {asked}",
                    where=user_location(),
                )
            found._shape = tuple(
                a or b for a, b in zip(known or (0,) * len(asked), asked, strict=True)
            )
        return found

    def get_constant(self, name: str, value: Any = None) -> Constant:
        """Return the constant ``prefix + name``, made of ``value`` if there is none."""
        full = self._prefix + name
        found = self._own_or_shared(full)
        if found is None:
            if value is None:
                raise UnknownNameError(
                    f"there is no constant {full!r}", remedy="Give its value.",
                    where=user_location(),
                )  # fmt: skip
            found = Constant(full, value)
        self._params[full] = found
        return found  # type: ignore[return-value]

    def _own_or_shared(self, full: str) -> Parameter | None:
        if full in self._params:
            return self._params[full]
        return None if self._shared is None else self._shared._find(full)

    def update(self, other: ParameterDict, select: str | None = None) -> None:
        """Put in the Parameters of another dictionary."""
        for name, parameter in other.items():
            if self._params.setdefault(name, parameter) is not parameter:
                raise ArgumentError(
                    f"there are two parameters named {name!r}", where=user_location()
                )

    # -- for all of them -----------------------------------------------------------------------

    def initialize(
        self, init: Any = None, ctx: Any = None, verbose: bool = False, force_reinit: bool = False
    ) -> None:
        """Initialize every Parameter; ``init`` is for those without an initializer of their own.

        Those that have values already keep them, unless ``force_reinit``; a warning tells where
        that is all of them.
        """
        if self and not force_reinit and all(p.initialized for p in self.values()):
            where = user_location()
            warnings.warn_explicit(
                f"initialize() changes nothing: all {len(self)} parameters have values. Pass "
                "force_reinit=True for new ones.",
                UserWarning,
                where.file,
                where.line,
            )
        for parameter in self.values():
            parameter.initialize(None, ctx, init, force_reinit=force_reinit)

    def zero_grad(self) -> None:
        """Set every gradient to zeros."""
        for parameter in self.values():
            parameter.zero_grad()

    def reset_ctx(self, ctx: Any) -> None:
        """Move every Parameter to a device, or to each of a list."""
        for parameter in self.values():
            parameter.reset_ctx(ctx)

    def list_ctx(self) -> list[Any]:
        """Return the devices the Parameters are on."""
        return list(dict.fromkeys(c for p in self.values() for c in p.list_ctx()))

    def setattr(self, name: str, value: Any) -> None:
        """Set an attribute of every Parameter: ``setattr("grad_req", "null")``."""
        settable = ("grad_req", "lr_mult", "wd_mult", "init", "shape", "allow_deferred_init")
        if name not in settable:
            raise ArgumentError(
                f"a Parameter has no attribute {name!r} to set.{nearest(name, settable)}",
                remedy=f"There are {', '.join(settable)}.",
                where=user_location(),
            )
        for parameter in self.values():
            setattr(parameter, name, value)

    # -- files ---------------------------------------------------------------------------------

    def save(self, filename: Any, strip_prefix: str = "") -> None:
        """Write all values under full names, less ``strip_prefix``."""
        save_arrays(
            filename,
            {
                p.name.removeprefix(strip_prefix): p.values()
                for p in self.values()
            },
        )

    def load(
        self, filename: Any, ctx: Any = None, allow_missing: bool = False,
        ignore_extra: bool = False, restore_prefix: str = "", cast_dtype: bool = False,
        dtype_source: str = "current",
    ) -> None:  # fmt: skip
        """Read values written by ``save``, onto ``ctx`` or where the Parameters are."""
        loaded = load_arrays(filename)
        if not isinstance(loaded, dict):
            raise FileFormatError(f"{filename}: has no names", where=user_location())
        named = {restore_prefix + strip_kind(name): array for name, array in loaded.items()}
        load_values(
            filename, {p.name: p for p in self.values()}, named, allow_missing, ignore_extra,
            cast_dtype, dtype_source, ctx,
        )  # fmt: skip


def strip_kind(name: str) -> str:
    """Return a name without the ``arg:`` or ``aux:`` of MXNet's checkpoints."""
    return name[4:] if name.startswith(("arg:", "aux:")) else name


def shared_too(names: Mapping[str, Parameter], arrays: dict[str, Any]) -> dict[str, Any]:
    """Return arrays with those of shared Parameters under each of their names."""
    found = dict(arrays)
    stored = {id(names[name]): name for name in arrays if name in names}
    for name, parameter in names.items():
        if name not in found and id(parameter) in stored:
            found[name] = arrays[stored[id(parameter)]]
    return found


def load_values(
    filename: Any, parameters: Mapping[str, Parameter], arrays: Mapping[str, Any],
    allow_missing: bool, ignore_extra: bool, cast_dtype: bool, dtype_source: str, ctx: Any = None,
) -> None:  # fmt: skip
    """Set Parameters to arrays of a file; nothing is changed where something does not fit.

    Those that are on other devices than ``ctx`` move there.

    Raises
    ------
    FileFormatError
        Names the file and the parameter that is missing, not wanted, or of another shape or type.
    """
    if dtype_source not in ("current", "saved"):
        raise ArgumentError(
            f"dtype_source must be 'current' or 'saved', got {dtype_source!r}",
            where=user_location(),
        )
    if ctx is not None:
        devices_of(ctx)
    missing = [name for name in parameters if name not in arrays]
    extra = [name for name in arrays if name not in parameters]
    if missing and not allow_missing:
        raise _not_there(filename, missing[0], "is not in the file", arrays, "allow_missing=True")
    if extra and not ignore_extra:
        raise _not_there(
            filename, extra[0], "is in the file but not in the network", parameters,
            "ignore_extra=True",
        )  # fmt: skip
    wanted = {name: p for name, p in parameters.items() if name in arrays}
    for name, parameter in wanted.items():
        _check_fit(filename, name, parameter, arrays[name], cast_dtype)
    for name, parameter in wanted.items():
        if cast_dtype and dtype_source == "saved":
            parameter.cast(arrays[name].dtype)
        if not parameter.initialized and not parameter.deferred:
            parameter.shape = arrays[name].shape
            parameter.initialize(ctx=ctx)
        elif ctx is not None:
            parameter.reset_ctx(ctx)
        parameter.set_data(arrays[name])


def _not_there(
    filename: Any, name: str, what: str, others: Mapping[str, Any], option: str
) -> FileFormatError:
    listed = ", ".join(list(others)[:8]) + (", ..." if len(others) > 8 else "")
    return FileFormatError(
        f"{filename}: parameter {name!r} {what}.{nearest(name, others)}",
        remedy=f"The other side has {listed or 'none'}. Pass {option} to go on regardless.",
        where=user_location(),
    )


def _check_fit(
    filename: Any, name: str, parameter: Parameter, array: Any, cast_dtype: bool
) -> None:
    known = parameter.shape
    shape = tuple(array.shape)
    if known is not None and (
        len(known) != len(shape) or any(a and a != b for a, b in zip(known, shape, strict=True))
    ):
        raise FileFormatError(
            f"{filename}: parameter {name!r} has shape {shape} in the file, the network needs "
            f"{known}",
            remedy="The network was built with other sizes, or the file is of another network.",
            where=user_location(),
        )
    if not cast_dtype and array.dtype.type is not parameter.dtype:
        raise FileFormatError(
            f"{filename}: parameter {name!r} is {array.dtype.name} in the file, the network has "
            f"{parameter._dtype.name}",
            remedy="Pass cast_dtype=True to convert.",
            where=user_location(),
        )
