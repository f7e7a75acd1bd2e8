"""Where the options of `candi train` come from: the command line, then a TOML file, then the preset, then defaults."""

import json
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from candi_cli.commands import _options as options
from candi_cli.errors import RequestError

# What a preset changes besides the network; the paper's, and what its text leaves open from its published code.
PRESET_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "paper": {
        "optimizer": "adamax",
        "learning_rate": 5e-4,
        "batch_size": 90,
        "warmup": 0.2,
        "weight_decay": 0.0,
        "clip_norm": 2.0,
        "weight_average": 0.0,
        "mask_assays": 0.75,
        "mask_loci": 0.75,
        "thin": 1.0,
        "drop_sequence": 0.0,
        "loss_weights": "count=0.5,signal=1,peak=0.1,observed=0.25,imputed=1",
    },
    "base": {},
    "tiny": {},
}
_AS_WRITTEN = "candi.as_written"  # the values of options before they are parsed
_NOT_IN_A_FILE = ("config", "print_config", "help")


class ConfiguredCommand(click.Command):
    """A command whose options may also stand in a TOML file (`--config`), and some of whose defaults a preset sets."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find the file and the preset first, and make them the defaults of the rest."""
        if ctx.resilient_parsing:  # shell completion
            return super().parse_args(ctx, args)
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        path = given.get("config")
        in_file = read_config(Path(path), self, ctx) if isinstance(path, str) else {}
        presets = (given.get("preset"), in_file.get("preset"))
        preset = next((name for name in presets if isinstance(name, str)), "base")
        ctx.default_map = {**PRESET_DEFAULTS.get(preset, {}), **in_file}
        ctx.meta[_AS_WRITTEN] = {**{param.name: param.default for param in self.params}, **ctx.default_map, **given}
        stores = in_file.get("stores", ())
        # not every version of click takes the values of arguments from the default map
        return super().parse_args(ctx, args if given.get("stores") else [*args, *stores])

    def invoke(self, ctx: click.Context) -> Any:
        """Print the configuration, or run the command."""
        if ctx.params.pop("print_config", False):
            written = ctx.meta[_AS_WRITTEN]
            parsed = {param.name for param in self.params if isinstance(param.type, options.Parsed)}
            values = {name: written[name] if name in parsed else value for name, value in ctx.params.items()}
            click.echo(to_toml(self, values), nl=False)
            return None
        ctx.params.pop("config", None)
        return super().invoke(ctx)


def read_config(path: Path, command: click.Command, ctx: click.Context) -> dict[str, Any]:
    """Return the values of a TOML file by parameter name, each checked by its option's own type.

    Raises
    ------
    RequestError
        The file cannot be read, is not TOML, or has an unknown key or a value that its option would not take.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}; give a TOML file with --config") from error
    except ValueError as error:
        raise RequestError(f"{path}: not TOML ({error}); see 'candi train --print-config'") from error
    known = {_key(param): param for param in command.get_params(ctx) if param.name not in _NOT_IN_A_FILE}
    values: dict[str, Any] = {}
    for key, value in found.items():
        if key not in known:
            near = get_close_matches(key.lower().replace("_", "-"), known, n=1, cutoff=0)
            raise RequestError(f"{path}: unknown key '{key}'; the nearest that there is: '{near[0]}'")
        values[str(known[key].name)] = _checked(path, key, value, known[key], ctx)
    return values


def _checked(path: Path, key: str, value: Any, param: click.Parameter, ctx: click.Context) -> Any:
    """Return a value in the form that click takes, or raise RequestError."""
    is_list = param.nargs == -1 or bool(getattr(param, "multiple", False))
    if is_list and not isinstance(value, list):
        value = [value]
    is_flag = bool(getattr(param, "is_flag", False))
    scalars = value if is_list else [value]
    if any(isinstance(one, bool) != is_flag or not isinstance(one, str | int | float) for one in scalars):
        wanted = "true or false" if is_flag else "a list of numbers or texts" if is_list else "one number or text"
        raise RequestError(f"{path}: {key} is {json.dumps(value, default=str)}; give {wanted}")
    if not is_flag:  # as on the command line: an option's type reads words
        value = [str(one) for one in value] if is_list else str(value)
    try:
        param.type_cast_value(ctx, value)
    except click.UsageError as error:
        raise RequestError(f"{path}: {key}: {error.message.removesuffix('.')}; see 'candi train --help'") from error
    return value


def to_toml(command: click.Command, values: Mapping[str, Any]) -> str:
    """Return options as TOML that `read_config` takes; what is not set is left out."""
    lines = []
    for param in command.params:
        value = values.get(str(param.name))
        if param.name in _NOT_IN_A_FILE or value is None or value == ():
            continue
        lines.append(f"{_key(param)} = {_literal(value)}\n")
    return "".join(lines)


def _key(param: click.Parameter) -> str:
    """Return the name of a parameter in a file: its long option without the dashes."""
    if isinstance(param, click.Argument):
        return str(param.name)
    return next(name for name in param.opts if name.startswith("--")).removeprefix("--")


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_literal, value))}]"
    return json.dumps(str(value), ensure_ascii=False)
