"""Flags made of the fields of ``wsev.options``: name, check, help and variable of each come from the field's rule.

Knows no command.  A flag that is not given, neither here nor in the environment, says nothing: what the program gave
holds.  So None, which switches a limit off, is a value like others here, and is written ``none``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, fields
from typing import Any

import click
from click.core import ParameterSource

from wsev.errors import OptionError
from wsev.options import Listening, Options, Rule

__all__ = ["Flag", "GroupedCommand", "flags_of", "given"]

# Names that uvicorn's users know; all others are the fields' own.
NAMES = {"unix": "uds", "unix_mode": "uds-mode"}
# What no text can say: an object of the program's, and a context, for which there are flags with files.
WITHOUT_FLAG = ("sock", "ssl")

METAVARS = {"seconds": "SECONDS", "bytes": "BYTES", "count": "N", "mode": "MODE", "flag": None}
SECTIONS = {"seconds": "Times, in seconds", "bytes": "Sizes, in bytes", "count": "Counts"}  # of the server's options


class Flag(click.Option):
    """A flag that is a ``WSEV_*`` variable as well.

    Args:
        name: without the dashes; the variable is this in capitals.
        help: what it does.
        section: under which heading ``--help`` has it.
        parameter: what it is called in the program; None: as the flag.
        read: makes a value of what was written, or raises ValueError whose text is the remedy.
        settings: of ``click.Option``.
    """

    def __init__(
        self,
        name: str,
        help: str,
        *,
        section: str,
        parameter: str | None = None,
        read: Callable[[Any], Any] | None = None,
        **settings: Any,
    ) -> None:
        self.flag = f"--{name}"
        self.variable = "WSEV_" + name.upper().replace("-", "_")
        self.section = section
        self._read = read
        shown = f"{self.flag}/--no-{name}" if settings.get("type") is bool else self.flag
        super().__init__(
            [shown, parameter or name.replace("-", "_")], help=help, envvar=self.variable, default=None, **settings
        )

    def is_given(self, context: click.Context) -> bool:
        """Whether it was, on the command line or in the environment."""
        assert self.name is not None
        source = context.get_parameter_source(self.name)
        return source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Read what was given, as the last step of click's own."""
        value = super().process_value(ctx, value)
        if self._read is None or not self.is_given(ctx):
            return value
        try:
            return self._read(value)
        except OptionError as error:
            raise click.BadParameter(error.remedy, ctx, self) from None
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, self) from None

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Name what the value came from."""
        assert self.name is not None
        is_variable = ctx is not None and ctx.get_parameter_source(self.name) is ParameterSource.ENVIRONMENT
        return self.variable if is_variable else self.flag


class GroupedCommand(click.Command):
    """A command whose ``--help`` has its flags under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the flags, section by section, in the order of their first ones; --help is the last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                sections.setdefault(getattr(parameter, "section", "Help"), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def flags_of(of: type[Options] | type[Listening], *, section: str) -> Iterable[Flag]:
    """Make the flags of an options dataclass.

    Args:
        of: the dataclass.
        section: the heading for those that have none by their unit.
    """
    for item in fields(of):
        if item.name not in WITHOUT_FLAG:
            yield _flag_of(item, SECTIONS.get(item.metadata["rule"].unit, section) if of is Options else section)


def _flag_of(item: Field[Any], section: str) -> Flag:
    rule: Rule = item.metadata["rule"]
    return Flag(
        NAMES.get(item.name, item.name.replace("_", "-")),
        f"{' '.join(rule.text.split())}  [default: {_written(item.default)}]",
        section=section,
        parameter=item.name,
        read=lambda text: _value_of(rule, text),
        type=bool if rule.unit == "flag" else str,
        is_flag=rule.unit == "flag",
        multiple=rule.unit == "names",
        metavar=METAVARS.get(rule.unit, "TEXT"),
    )


def _value_of(rule: Rule, text: Any) -> Any:
    """Make a value of what was written.

    Raises:
        ValueError: it cannot be used; its text is the remedy.
    """
    if rule.is_optional and text in ("none", ("none",)):
        return None
    return rule.check(_number(rule.unit, text))


def _number(unit: str, text: Any) -> Any:
    """The number that a text is; a text that is none comes back, and the option's own check says what is wanted."""
    try:
        match unit:
            case "seconds":
                return float(text)
            case "bytes" | "count":
                return int(text)
            case "mode":
                return int(text, 8)
    except ValueError:
        if unit == "mode":
            raise ValueError("must be octal, such as 660") from None
    return text


def _written(default: Any) -> str:
    """A default as it would be written on the command line."""
    assert default is not MISSING
    match default:
        case None | ():
            return "none"
        case bool():
            return "on" if default else "off"
        case tuple():
            return " ".join(default)
        case float():
            return f"{default:g}"
    return str(default)


def given(context: click.Context, of: type[Options] | type[Listening]) -> dict[str, Any]:
    """What was given of the options of ``of``, by their names."""
    names = {item.name for item in fields(of)}
    return {
        flag.name: context.params[flag.name]
        for flag in context.command.params
        if isinstance(flag, Flag) and flag.name in names and flag.is_given(context)
    }
