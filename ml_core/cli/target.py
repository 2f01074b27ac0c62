"""Which platform a command asks.

It is that of ``--url``, of ``MLCORE_URL`` or of ``mlcore login``; else the registry of the settings, through the same
control API in this process.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from ml_core.cli.console import wants_json
from ml_core.cli.options import JsonOption, TenantOption
from ml_core.exceptions import Action, ConfigurationError, InvalidRequestError
from ml_core.settings import Settings

if TYPE_CHECKING:
    import httpx

    from ml_core.client import MLClient

_TIMEOUT_S = 60.0
"""For one operation; uploads and trainings have their own."""


@dataclass(frozen=True, slots=True)
class Login:
    """What ``mlcore login`` keeps: a platform, a key and the names that options then have as defaults.

    ``tenant`` is None for a key of the platform.
    """

    url: str
    key: str
    tenant: str | None = None
    model: str | None = None

    def save(self) -> Path:
        """Write it to the user's configuration, readable by the user only.

        Raises:
            ConfigurationError: The file can't be written.
        """
        path = _login_path()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, part = tempfile.mkstemp(dir=path.parent)  # readable by the user only
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(asdict(self), file)
            Path(part).rename(path)
        except OSError as error:
            raise ConfigurationError(
                f"{path} can't be written: {error.strerror}.",
                remedy="Correct the folder's permissions, or set XDG_CONFIG_HOME to another.",
                setting="login",
            ) from error
        return path

    @classmethod
    def load(cls) -> Login | None:
        """What was saved; None if there is nothing.

        Raises:
            ConfigurationError: The file can't be read.
        """
        path = _login_path()
        try:
            kept = cls(**json.loads(path.read_text(encoding="utf-8")))
            if not all(value is None or isinstance(value, str) for value in asdict(kept).values()):
                raise ValueError("it holds something else than texts")
            return kept
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(
                f"The login in {path} can't be read: {error}.",
                remedy="Log in again, or remove the file.",
                action=Action("logout"),
                setting="login",
            ) from error

    @staticmethod
    def forget() -> bool:
        """Remove it; whether there was anything."""
        path = _login_path()
        existed = path.is_file()
        path.unlink(missing_ok=True)
        return existed


def _login_path() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "mlcore" / "login.json"


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What ``--url``, ``--key`` and ``--tenant`` of the verb that runs say."""

    url: str | None = None
    key: str | None = None
    tenant: str | None = None


_NOTHING = _Chosen()
_chosen: ContextVar[_Chosen] = ContextVar("chosen", default=_NOTHING)

_UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        rich_help_panel="Platform",
        help="The platform; default: MLCORE_URL, then that of `mlcore login`, then this machine's registry.",
    ),
]
_KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        rich_help_panel="Platform",
        help="The API key to act with; default: MLCORE_API_KEY, then that of `mlcore login`.",
    ),
]


Options = dict[str, tuple[Any, Any]]
"""Options of a verb: name → type and default."""


def complete(
    verb: Callable[..., None], *, asks: Literal["tenant", "platform"] | None, prints_json: bool
) -> Callable[..., None]:
    """A verb with the options that are the same for all and that its signature therefore does not repeat.

    These are ``--json``, which ``console`` reads, and for a verb that asks a platform ``--tenant``, ``--url`` and
    ``--key``, which ``platform`` reads. A ``tenant`` of the verb's own takes the place of ``--tenant``. A ``model``
    without a default is that of ``mlcore login`` where the option is left out.

    Args:
        verb: The function, with the verb's own options.
        asks: What the verb asks: one tenant of a platform, a platform as a whole, or neither.
        prints_json: Whether the verb has ``--json``.
    """
    if "is_local" in vars(verb):
        asks = None
    hints = get_type_hints(verb, include_extras=True)
    parameters = inspect.signature(verb).parameters
    own = {name: (hints[name], parameter.default) for name, parameter in parameters.items()}
    needs_model = "model" in own and own["model"][1] is inspect.Parameter.empty
    if needs_model:
        own["model"] = (hints["model"], None)
    before: Options = {}
    after: Options = {}
    if asks == "tenant" and "tenant" not in own:
        before["tenant"] = (TenantOption, None)
    if prints_json:
        after["as_json"] = (JsonOption, False)
    if asks is not None:
        after |= {"url": (_UrlOption, None), "key": (_KeyOption, None)}
    chosen = [name for name in ("url", "key", "tenant") if name in before | after]

    @functools.wraps(verb)
    def run(**values: Any) -> None:
        _chosen.set(_Chosen(**{name: values[name] for name in chosen}))
        wants_json.set(values.get("as_json", False))
        if needs_model:
            values["model"] = given("model", values["model"], "--model")
        verb(**{name: values[name] for name in own})

    return with_options(run, before | own | after)


def local(verb: Callable[..., None]) -> Callable[..., None]:
    """Mark a verb that asks no platform, in a module of verbs that do."""
    vars(verb)["is_local"] = True
    return verb


def with_options(verb: Callable[..., None], options: Options) -> Callable[..., None]:
    """Give a function of keywords the signature from which Typer makes a command: name → type and default."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    verb.__annotations__ = {name: kind for name, (kind, _) in options.items()}
    verb.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # as inspect documents it
        [inspect.Parameter(name, keyword, default=value, annotation=kind) for name, (kind, value) in options.items()]
    )
    return verb


def given(name: str, value: str | None, field: str) -> str:
    """A name that an option gave, or else ``mlcore login`` keeps.

    Raises:
        InvalidRequestError: Neither has it.
    """
    if value is None:
        login = _login()
        value = getattr(login, name) if login else None
    if value is None:
        raise InvalidRequestError(
            f"The command needs {field}.", remedy=f"Give {field}, or keep one with mlcore login.", field=field
        )
    return value


def tenant_name(tenant: str | None = None) -> str:
    """The tenant: the given one, or else that of ``--tenant`` or of ``mlcore login``.

    Raises:
        InvalidRequestError: There is none.
    """
    return given("tenant", tenant or _chosen.get().tenant, "--tenant")


def _named_url() -> str | None:
    """What ``--url`` or ``MLCORE_URL`` says."""
    url = _chosen.get().url or Settings.from_environment().client.url
    return url.rstrip("/") if url else None


def _login() -> Login | None:
    """The login, unless the command asks another platform: no key and no default of one is meant for another."""
    login, url = Login.load(), _named_url()
    return login if login is not None and url in (None, login.url) else None


def address() -> tuple[str | None, str | None]:
    """The address of the platform that the command asks, and the key; None: there is none."""
    login = _login()
    url = _named_url() or (login.url if login else None)
    key = _chosen.get().key or Settings.from_environment().client.api_key or (login.key if login else None)
    return url, key


class _Recorded(BaseException):
    """Ends a verb at its first request, which it holds."""

    def __init__(self, request: httpx.Request) -> None:
        super().__init__()
        self.request = request


def _record(request: httpx.Request) -> httpx.Response:
    request.read()
    raise _Recorded(request)


_is_recorded: ContextVar[bool] = ContextVar("is_recorded", default=False)


def recorded(verb: Callable[[], object]) -> httpx.Request | None:
    """The first request that a verb would send, of some tenant; nothing is sent. None: it sends none."""
    _is_recorded.set(True)
    try:
        verb()
    except _Recorded as recorded:
        return recorded.request
    return None


@contextmanager
def platform(tenant: str | None = None, *, of_tenant: bool = True) -> Iterator[MLClient]:
    """A client of the platform that the command asks.

    Args:
        tenant: Whose nouns are asked for; None: that of ``--tenant``, or else of ``mlcore login``.
        of_tenant: Whether there has to be a tenant; False for what is over all of them.

    Raises:
        ConfigurationError: There is an address but no key.
        InvalidRequestError: There is no tenant.
    """
    from ml_core.client import MLClient

    if _is_recorded.get():
        from httpx import MockTransport

        with MLClient("http://recorded", tenant_id="recorded", transport=MockTransport(_record)) as client:
            yield client
        return
    url, key = address()
    name = tenant_name(tenant) if of_tenant else None
    if url is None:
        with _in_process(Settings.from_environment(), key, name) as client:
            yield client
        return
    if key is None:
        raise ConfigurationError(
            f"There is no API key for {url}.",
            remedy="Give --key, set MLCORE_API_KEY, or log in.",
            action=Action.of("login"),
            setting="MLCORE_API_KEY",
        )
    with MLClient(url, api_key=key, tenant_id=name, timeout_s=_TIMEOUT_S) as client:
        yield client


@contextmanager
def _in_process(settings: Settings, key: str | None, tenant: str | None) -> Iterator[MLClient]:
    """A client of the control API in this process; without a key the operating system's user acts, as an operator."""
    # Imported late: a command that asks over HTTP needs neither a server nor a database driver.
    from ml_core.api.access import Services
    from ml_core.api.app import PREFIX, LazyApp
    from ml_core.cli.context import registry_connection
    from ml_core.client import MLClient
    from ml_core.client.inprocess import InProcessTransport

    with registry_connection(settings) as db:
        transport = InProcessTransport(LazyApp(Services(db, db.principal)), PREFIX)
        address = "http://in-process"
        with MLClient(address, api_key=key, tenant_id=tenant, timeout_s=_TIMEOUT_S, transport=transport) as client:
            yield client
