"""Operations described once, for both clients: a call is a value that says what to send and how to read the answer.

A noun's method builds a ``Call``; ``operation`` makes of it a method that returns the answer in ``MLClient``, and one
to be awaited in ``AsyncMLClient``. So there are no two copies of an operation that could drift apart.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload
from urllib.parse import quote

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError

from ml_core.api.schemas.base import Page, invalid_fields
from ml_core.exceptions import ConfigurationError
from ml_core.ids import ModelId

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Progress = Callable[[int, int], object]
"""Called with the bytes that were sent or received, and how many there are in all (0 where that is not known)."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to send as a request's body, read in pieces; with what is sent before and after it."""

    path: Path
    content_type: str
    on_progress: Progress | None = None
    before: bytes = b""
    after: bytes = b""


@dataclass(frozen=True, slots=True)
class Download:
    """A file to write an answer to, in pieces. It must not exist yet, and is removed where the download fails."""

    path: Path
    on_progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """A form of several parts: JSON documents, and one file."""

    documents: Mapping[str, BaseModel]
    name: str
    upload: Upload


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """One request to the platform.

    Attributes:
        method: The HTTP method.
        path: From the root of the ingress.
        result: What the answer is: a schema, or any type that pydantic reads; None where it has no body.
        params: Of the query; those that are None are not sent.
        body: Sent as JSON; bytes are JSON already.
        upload: Sent instead of JSON.
        form: Sent instead of JSON.
        download: Where the answer goes instead of being read.
        timeout_s: Seconds to wait for the answer; None: the client's own.
        cursor: Of a list, the parameter that takes the cursor of a page.
        complete: Makes what is sent, where that takes a while; the stack removes it after the answer.
    """

    method: str
    path: str
    result: type[T_co]
    params: Mapping[str, Any] = field(default_factory=dict)
    body: BaseModel | bytes | None = None
    upload: Upload | None = None
    form: Form | None = None
    download: Download | None = None
    timeout_s: float | None = None
    cursor: str = "cursor"
    complete: Callable[[ExitStack], Call[T_co]] | None = None

    def read(self, content: bytes) -> T_co:
        """The answer's value."""
        adapter: TypeAdapter[T_co] = _adapter(self.result)  # type: ignore[arg-type]  # types are hashable
        return adapter.validate_json(content) if content else adapter.validate_python(None)


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


class Sync(Protocol):
    """Sends a call and waits for its answer."""

    def send(self, call: Call[T]) -> T:
        """The answer of a call."""
        ...


class Async(Protocol):
    """Sends a call; the answer is awaited."""

    async def asend(self, call: Call[T]) -> T:
        """The answer of a call."""
        ...


Mode = TypeVar("Mode", bound=Sync | Async)


class Noun(Generic[Mode]):
    """Operations of one noun, for one tenant.

    Args:
        connection: Sends calls.
        tenant: The tenant; empty for what is over all tenants.
    """

    def __init__(self, connection: Mode, tenant: str = "") -> None:
        self._connection: Any = connection
        self._tenant = tenant

    @property
    def _root(self) -> str:
        if not self._tenant:
            raise ConfigurationError("The client names no tenant.", remedy="Give it tenant_id.", setting="tenant_id")
        return f"/api/v1/tenants/{self._tenant}"

    def _model(self, model_id: str) -> str:
        return f"{self._root}/models/{ModelId(model_id)}"


class operation(Generic[P, T]):  # noqa: N801 - a decorator
    """Makes a method that builds a call one that performs it."""

    def __init__(self, plan: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self._plan = plan
        self.__doc__ = plan.__doc__

    @overload
    def __get__(self, noun: Noun[Sync], owner: Any) -> Callable[P, T]: ...
    @overload
    def __get__(self, noun: Noun[Async], owner: Any) -> Callable[P, Awaitable[T]]: ...
    @overload
    def __get__(self, noun: None, owner: Any) -> Callable[..., Call[T]]: ...
    def __get__(self, noun: Any, owner: Any) -> Any:
        """The method of a noun; of the class, the function that builds the call."""
        if noun is None:
            return self._plan
        send = getattr(noun._connection, "send", None) or noun._connection.asend

        @functools.wraps(self._plan)
        def perform(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                call = self._plan(noun, *args, **kwargs)
            except ValidationError as error:  # a body that the platform would refuse with the same words
                raise invalid_fields({**each, "loc": ("body", *each["loc"])} for each in error.errors()) from error
            return send(call)

        return perform


class Items(Generic[T]):
    """All items of a list, a page at a time: iterate over it, or ask for single pages."""

    def __init__(self, connection: Sync, call: Call[Page[T]]) -> None:
        self._connection = connection
        self._call = call

    def page(self, *, limit: int | None = None, cursor: str | None = None) -> Page[T]:
        """One page: ``items``, and the ``next_cursor`` to give for the next.

        Args:
            limit: At most so many items, 1 to 1000.
            cursor: ``next_cursor`` of the page before; None: the first page.
        """
        return self._connection.send(_paged(self._call, limit, cursor))

    def __iter__(self) -> Iterator[T]:
        cursor = None
        while True:
            page = self.page(cursor=cursor)
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return


class AsyncItems(Generic[T]):
    """As ``Items``, with ``async for`` and ``await``."""

    def __init__(self, connection: Async, call: Call[Page[T]]) -> None:
        self._connection = connection
        self._call = call

    async def page(self, *, limit: int | None = None, cursor: str | None = None) -> Page[T]:
        """One page, see ``Items.page``."""
        return await self._connection.asend(_paged(self._call, limit, cursor))

    async def __aiter__(self) -> AsyncIterator[T]:
        cursor = None
        while True:
            page = await self.page(cursor=cursor)
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return


list_of = list
"""``list`` in the annotations of a noun that has a method of this name."""


def quoted(text: str) -> str:
    """A text as one part of a path."""
    return quote(text, safe="")


def json_text(value: Any) -> str:
    """A value as JSON, for a query."""
    return orjson.dumps(value).decode()


def _paged(call: Call[T], limit: int | None, cursor: str | None) -> Call[T]:
    return replace(call, params={**call.params, "limit": limit, **({} if cursor is None else {call.cursor: cursor})})


class listing(Generic[P, T]):  # noqa: N801 - a decorator
    """Makes a method that builds the call of a page one that returns all items."""

    def __init__(self, plan: Callable[Concatenate[Any, P], Call[Page[T]]]) -> None:
        self._plan = plan
        self.__doc__ = plan.__doc__

    @overload
    def __get__(self, noun: Noun[Sync], owner: Any) -> Callable[P, Items[T]]: ...
    @overload
    def __get__(self, noun: Noun[Async], owner: Any) -> Callable[P, AsyncItems[T]]: ...
    @overload
    def __get__(self, noun: None, owner: Any) -> Callable[..., Call[Page[T]]]: ...
    def __get__(self, noun: Any, owner: Any) -> Any:
        """The method of a noun; of the class, the function that builds the call."""
        if noun is None:
            return self._plan
        kind = Items if hasattr(noun._connection, "send") else AsyncItems

        @functools.wraps(self._plan)
        def perform(*args: P.args, **kwargs: P.kwargs) -> Any:
            return kind(noun._connection, self._plan(noun, *args, **kwargs))

        return perform
