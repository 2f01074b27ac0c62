"""Options that several verbs have."""

from __future__ import annotations

from typing import Annotated

import typer

TenantOption = Annotated[
    str | None, typer.Option("--tenant", "-t", help="The tenant, such as acme; default: that of `mlcore login`.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="The model, such as tickets; default: that of `mlcore login`.")
]
EnvironmentOption = Annotated[str, typer.Option("--environment", "-e", help="The environment.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")]
CursorOption = Annotated[str | None, typer.Option("--cursor", help="Where the page before ended.")]
ArchivedOption = Annotated[bool, typer.Option("--archived", help="Archived ones too.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Don't ask.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
