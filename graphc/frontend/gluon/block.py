"""Block: a network or a part of one, made of Parameters and other Blocks."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from graphc.errors import ArgumentError, DTypeError, no_attribute, scope, scoped, user_location
from graphc.frontend.array import Array, common
from graphc.frontend.formats.arrays import load_arrays, save_arrays
from graphc.frontend.gluon.arguments import (
    check_keywords,
    no_input,
    unknown_argument,
    wrong_inputs,
)
from graphc.frontend.gluon.completions import Completed
from graphc.frontend.gluon.input_shapes import elsewhere
from graphc.frontend.gluon.naming import NameScope
from graphc.frontend.gluon.parameter import Parameter
from graphc.frontend.gluon.parameter_dict import (
    ParameterDict,
    load_values,
    shared_too,
    strip_kind,
)
from graphc.frontend.gluon.summary import summary
from graphc.frontend.tracer import Trace, current_trace, tracing
from graphc.frontend.tree import flatten, unflatten
from graphc.ir.graph import placeholder
from graphc.ir.sizes import solving

Hook = Callable[..., Any]


class Changes:
    """Counts what was changed on any Block, so that compiled ones see that they must look."""

    count = 0


class HookHandle:
    """What registering a hook returns; ``detach()`` takes the hook away again."""

    def __init__(self, hooks: list[Hook], hook: Hook) -> None:
        self._hooks, self._hook = hooks, hook

    def detach(self) -> None:
        """Take the hook away."""
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *error: Any) -> None:
        self.detach()


class Block:
    """Base of layers and networks: assign Blocks and Parameters to attributes, write ``forward``.

    Parameters
    ----------
    prefix : str, optional
        Begins the names of its Parameters; by default class name and number, ``dense0_``.
    params : ParameterDict, optional
        Parameters to share: those of another Block, ``other.params``.

    Examples
    --------
    >>> from graphc.gluon import nn
    >>> class Net(nn.Block):
    ...     def __init__(self, **kwargs):
    ...         super().__init__(**kwargs)
    ...         self.hidden = nn.Dense(8, activation="relu")
    ...         self.output = nn.Dense(2)
    ...     def forward(self, x):
    ...         return self.output(self.hidden(x))
    """

    _children: dict[str, Block]
    _reg_params: dict[str, Parameter]
    _prefix: str
    _params: ParameterDict
    _name_scope: NameScope
    _version: int
    _hooks: list[Hook]
    _pre_hooks: list[Hook]
    _attribute: str
    _completed: int

    def __init__(
        self, prefix: str | None = None, params: ParameterDict | None = None, **unknown: Any
    ) -> None:
        for name in unknown:
            raise unknown_argument(type(self), name)
        full, own = NameScope.name_for(prefix, params, self._alias())
        state: dict[str, Any] = {
            "_children": {},
            "_reg_params": {},
            "_prefix": full,
            "_params": own,
            "_name_scope": NameScope(full, self),
            "_version": 0,
            "_hooks": [],
            "_pre_hooks": [],
            "_attribute": "",
            "_completed": -1,
        }
        self.__dict__.update(state)

    def _alias(self) -> str:
        """Return what numbered prefixes of this kind of Block begin with."""
        return type(self).__name__.lower()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        check_keywords(cls, kwargs)
        return super().__new__(cls)

    # -- attributes ----------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        names = (*self.__dict__, *dir(type(self)))
        raise no_attribute(f"{type(self).__name__}", name, names)

    def __setattr__(self, name: str, value: Any) -> None:
        state = self.__dict__
        if "_children" not in state:
            raise ArgumentError(
                f"{type(self).__name__} sets self.{name} before it is a Block",
                remedy="Call super().__init__() first in __init__.",
                where=user_location(),
            )
        before = state.get(name)
        if before is not value:
            self._registered(name, before, value)
        state[name] = value

    def _registered(self, name: str, before: Any, value: Any) -> None:
        """Keep children and own Parameters up to date with the attributes."""
        if isinstance(before, (Block, Parameter)):
            if value is not None and not isinstance(value, (Block, Parameter)):
                raise ArgumentError(
                    f"{type(self).__name__}.{name} is a {type(before).__name__} and cannot become "
                    f"a {type(value).__name__}",
                    where=user_location(),
                )
            # What replaces one of its kind takes its place in the order.
            if not isinstance(value, Block):
                self._children.pop(name, None)
            if not isinstance(value, Parameter):
                self._reg_params.pop(name, None)
        if isinstance(value, Block):
            self.register_child(value, name)
        elif isinstance(value, Parameter):
            self._reg_params[name] = value
        self._note_change()

    def __delattr__(self, name: str) -> None:
        self._children.pop(name, None)
        self._reg_params.pop(name, None)
        self._note_change()
        object.__delattr__(self, name)

    def _note_change(self) -> None:
        """Note that compiled programs that contain this Block are out of date."""
        if current_trace() is None:
            self.__dict__["_version"] += 1
            Changes.count += 1

    def register_child(self, block: Block, name: str | None = None) -> None:
        """Make a Block a child, by default under its number."""
        key = str(len(self._children)) if name is None else name
        self._children[key] = block
        block.__dict__["_attribute"] = key
        self._note_change()

    def __repr__(self) -> str:
        lines = [f"  ({name}): {_indented(repr(child))}" for name, child in self._children.items()]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"]) if lines else (
            f"{type(self).__name__}()"
        )

    # -- names ---------------------------------------------------------------------------------

    @property
    def prefix(self) -> str:
        """What the full names of its Parameters begin with."""
        return self._prefix

    @property
    def name(self) -> str:
        """The prefix without its last underscore."""
        return self._prefix.removesuffix("_")

    @property
    def params(self) -> ParameterDict:
        """Its own Parameters, without those of children; ``params.get`` makes one."""
        return self._params

    def name_scope(self) -> NameScope:
        """Return a scope in which new Blocks get names that begin with this one's prefix."""
        return self._name_scope

    def blocks(self) -> Iterator[Block]:
        """Yield this Block and all Blocks in it, each once."""
        seen: set[int] = set()
        stack: list[Block] = [self]
        while stack:
            block = stack.pop()
            if id(block) not in seen:
                seen.add(id(block))
                yield block
                stack.extend(reversed(list(block._children.values())))

    # -- parameters ----------------------------------------------------------------------------

    def collect_params(self, select: str | None = None) -> ParameterDict:
        """Return the Parameters of this Block and its children.

        Parameters
        ----------
        select : str, optional
            A regular expression that the structural name, ``0.weight``, or the full name,
            ``dense0_weight``, must match at its beginning.

        Returns
        -------
        ParameterDict
            By structural name; each Parameter once.
        """
        self._check_containers()
        found = ParameterDict(self.params.prefix)
        pattern = None if select is None else re.compile(select)
        seen: set[int] = set()
        for name, parameter in self._structural():
            matches = pattern is None or pattern.match(name) or pattern.match(parameter.name)
            if id(parameter) not in seen and matches:
                seen.add(id(parameter))
                found.add(name, parameter)
        return found

    def _structural(self, path: str = "") -> Iterator[tuple[str, Parameter]]:
        """Yield every Parameter by its structural name; a shared one under each of its names."""
        registered = {id(p) for p in self._reg_params.values()}
        for name, parameter in self._reg_params.items():
            yield path + name, parameter
        for name, parameter in self.params.items():
            if id(parameter) not in registered:
                yield path + name.removeprefix(self.params.prefix), parameter
        for name, child in self._children.items():
            yield from child._structural(f"{path}{name}.")

    def _check_containers(self) -> None:
        children = {id(child) for child in self._children.values()}
        for name, value in self.__dict__.items():
            if name.startswith("_") or not isinstance(value, (list, tuple, dict)):
                continue
            parts = value.values() if isinstance(value, dict) else value
            if any(isinstance(part, Block) and id(part) not in children for part in parts):
                warnings.warn(
                    f"{type(self).__name__}.{name} holds Blocks in a {type(value).__name__}: their "
                    "parameters are not collected. Use nn.Sequential or register_child.",
                    stacklevel=4,
                )

    def initialize(
        self, init: Any = None, ctx: Any = None, verbose: bool = False, force_reinit: bool = False
    ) -> None:
        """Initialize all Parameters; shapes that are not known yet wait for the first data.

        Parameters
        ----------
        init : Initializer or str, optional
            For Parameters without an initializer of their own; by default ``Uniform(0.07)``.
        ctx : Context or list of Context, optional
            By default the current one.
        verbose : bool
            Without meaning.
        force_reinit : bool
            Initialize anew what is initialized already.
        """
        self.collect_params().initialize(init, ctx, verbose, force_reinit)

    def zero_grad(self) -> None:
        """Set all gradients to zeros."""
        self.collect_params().zero_grad()

    def setattr(self, name: str, value: Any) -> None:
        """Set an attribute of all Parameters."""
        self.collect_params().setattr(name, value)

    def reset_ctx(self, ctx: Any) -> None:
        """Move all Parameters to a device, or to each of a list."""
        self.collect_params().reset_ctx(ctx)

    def cast(self, dtype: Any) -> None:
        """Convert all Parameters to another element type."""
        for child in self._children.values():
            child.cast(dtype)
        for _, parameter in self._own_parameters():
            parameter.cast(dtype)
        self._note_change()

    def _own_parameters(self) -> list[tuple[str, Parameter]]:
        return [(n, p) for n, p in ParameterDict.items(self.params)] + [
            (n, p) for n, p in self._reg_params.items() if p.name not in self.params._params
        ]

    def apply(self, fn: Callable[[Block], Any]) -> Block:
        """Call ``fn`` on every child and then on this Block; return it."""
        for child in self._children.values():
            child.apply(fn)
        fn(self)
        return self

    def hybridize(self, active: bool = True, **kwargs: Any) -> None:
        """Compile the HybridBlocks among the children; this Block itself stays Python."""
        for child in self._children.values():
            child.hybridize(active, **kwargs)

    # -- files ---------------------------------------------------------------------------------

    def save_parameters(self, filename: Any, deduplicate: bool = False) -> None:
        """Write all Parameters under their structural names; the old file stays until it is done.

        Parameters
        ----------
        filename : path-like
            ``.safetensors``, or any other name for MXNet's format.
        deduplicate : bool
            Write a shared Parameter once only.
        """
        arrays: dict[str, Any] = {}
        seen: set[int] = set()
        for name, parameter in self._structural():
            if deduplicate and id(parameter) in seen:
                continue
            seen.add(id(parameter))
            arrays[name] = parameter.values()
        save_arrays(filename, arrays)

    def load_parameters(
        self, filename: Any, ctx: Any = None, allow_missing: bool = False,
        ignore_extra: bool = False, cast_dtype: bool = False, dtype_source: str = "current",
    ) -> None:  # fmt: skip
        """Read Parameters from a file that ``save_parameters`` or MXNet wrote.

        Parameters
        ----------
        filename : path-like
        ctx : Context or list of Context, optional
            Where to put them; by default where they are.
        allow_missing, ignore_extra : bool
            Accept that the file lacks, or has more than, what the network needs.
        cast_dtype : bool
            Convert element types.
        dtype_source : {"current", "saved"}
            Whose type stays when converting.

        Raises
        ------
        FileFormatError
            Names the file and the parameter that does not fit; nothing was changed.
        """
        loaded = load_arrays(filename)
        names = dict(self._structural())
        if not isinstance(loaded, dict):
            raise ArgumentError(
                f"{filename} holds arrays without names", where=user_location()
            )
        arrays = {strip_kind(name): array for name, array in loaded.items()}
        full = {parameter.name: parameter for parameter in names.values()}
        wanted = names
        if not any(name in names for name in arrays) and any(
            n in full or self.prefix + n in full for n in arrays
        ):
            wanted = full
            arrays = {n if n in full else self.prefix + n: a for n, a in arrays.items()}
        else:
            arrays = shared_too(names, arrays)
        load_values(
            filename, wanted, arrays, allow_missing, ignore_extra, cast_dtype, dtype_source, ctx
        )

    save_params, load_params = save_parameters, load_parameters

    # -- running -------------------------------------------------------------------------------

    def register_forward_hook(self, hook: Hook) -> HookHandle:
        """Call ``hook(block, inputs, output)`` after each forward pass."""
        self._hooks.append(hook)
        self._note_change()
        return HookHandle(self._hooks, hook)

    def register_forward_pre_hook(self, hook: Hook) -> HookHandle:
        """Call ``hook(block, inputs)`` before each forward pass."""
        self._pre_hooks.append(hook)
        self._note_change()
        return HookHandle(self._pre_hooks, hook)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run ``forward``."""
        inner = scoped()
        with scope(self._attribute if inner and self._attribute else type(self).__name__):
            for hook in tuple(self._pre_hooks):
                hook(self, args)
            try:
                device = elsewhere(args, kwargs)
                if device is None:
                    result = self._compute(args, kwargs)
                else:
                    with device:
                        result = self._compute(args, kwargs)
            except BaseException as error:
                if not inner:
                    Completed.undo()
                misfit = wrong_inputs(self, args, kwargs) if isinstance(error, TypeError) else None
                if misfit is None and isinstance(error, TypeError | AttributeError | DTypeError):
                    misfit = no_input(self, args)
                if misfit is None:
                    raise
                raise misfit from None
            if not inner:
                Completed.keep()
            for hook in tuple(self._hooks):
                hook(self, args, result)
            return result

    def _compute(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._complete_own(args)
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any) -> Any:
        """Compute the output; every network overrides this."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def infer_shape(self, *args: Any) -> None:
        """Set the shapes of its own Parameters from the inputs; layers override this."""

    def _complete_own(self, args: tuple[Any, ...]) -> None:
        """Make the arrays of own Parameters whose shape the inputs tell."""
        waiting = [p for p in self._reg_params.values() if p.deferred]
        if waiting:
            self.infer_shape(*args)
            for parameter in waiting:
                parameter.finish_deferred()

    def complete(self, *args: Any) -> None:
        """Make the arrays that wait for shapes, by a pass over the shapes of these inputs only.

        Parameters
        ----------
        *args : NDArray
            As the Block is called with; only shapes and types matter.
        """
        self._shape_pass(self, args, {})

    def _shape_pass(
        self, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if self._completed == Changes.count:
            return
        parameters = [parameter for _, parameter in self._structural()]
        if all(parameter.initialized for parameter in parameters):
            self.__dict__["_completed"] = Changes.count
        if not any(parameter.deferred for parameter in parameters):
            return
        leaves, structure = flatten((args, kwargs), lambda x: isinstance(x, Array))
        trace = Trace(common(leaves, "input"))
        with solving(trace.solver), tracing(trace):
            handles = [
                a.tracer_class.wrap(placeholder(f"x{i}", a.type)) for i, a in enumerate(leaves)
            ]
            positional, keywords = unflatten(structure, handles)
            run(*positional, **keywords)

    def summary(self, *inputs: Any) -> None:
        """Print each layer with its output shape and number of Parameters.

        Parameters
        ----------
        *inputs : NDArray
            What the network is called with.
        """
        print(summary(self, inputs))


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")
