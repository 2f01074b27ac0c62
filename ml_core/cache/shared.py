"""The entries of a cache that processes share in a Redis server.

An entry is a string with Redis's own expiry. Three keys index them, so that scripts can enforce the bounds: ``used``
(entry → last use) and ``expires`` (entry → end) in microseconds, and ``sizes`` (entry → bytes, and their total).
``claim:…`` says that a process computes an entry. All keys begin with ``mlcore:cache:1:``; 1 is the format.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ml_core.cache.config import CacheConfig
from ml_core.exceptions import ConfigurationError

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError:
    raise ConfigurationError(
        "A shared cache needs the package redis, which is not installed.",
        remedy='Install it with: pip install "ml-core-platform[redis]"',
        setting="url",
    ) from None

logger = logging.getLogger(__name__)

T = TypeVar("T")

TIMEOUT_S = 0.25
"""A server on the same network answers within a few milliseconds. The URL may set ``socket_timeout`` and
``socket_connect_timeout`` instead."""
PAUSE_S = 5.0
"""How long a server that did not answer is not asked."""
CLAIM_S = 1.0
"""How long a process waits for another that computes the same entry. A killed process delays others by this once."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.0005, 0.05  # doubled each time, so that a short computation is not waited for long

_PREFIX = "mlcore:cache:1:"
_INDEX = [f"{_PREFIX}{name}" for name in ("used", "expires", "sizes")]
_CHECKSUM_BYTES = 16

_COMMON = """
local used, expires, sizes = KEYS[1], KEYS[2], KEYS[3]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function unindex(entry)
  redis.call('ZREM', used, entry)
  redis.call('ZREM', expires, entry)
  local size = redis.call('HGET', sizes, entry)
  if size then
    redis.call('HDEL', sizes, entry)
    redis.call('HINCRBY', sizes, 'total', -size)
  end
end

local function drop(entry)
  unindex(entry)
  redis.call('DEL', 'mlcore:cache:1:' .. entry)
end

local function drop_expired(most)
  for _, entry in ipairs(redis.call('ZRANGEBYSCORE', expires, '-inf', now, 'LIMIT', 0, most)) do drop(entry) end
end
"""
# pcall: a write is refused if the memory of the server is full, and a key that is no string is nobody's entry.
_GET = f"""{_COMMON}
local value = redis.pcall('GET', KEYS[4])
if type(value) == 'string' then
  redis.pcall('ZADD', used, 'XX', now, ARGV[1])
  return value
end
if ARGV[2] == '' then return 1 end
return redis.pcall('SET', KEYS[5], ARGV[2], 'NX', 'PX', ARGV[3]) and 1 or 0
"""
# The value is written first: a server without memory refuses only the first write of a script. Evictions are bounded,
# so that a process with smaller bounds than the others does not hold up the server.
_PUT = f"""{_COMMON}
local entry, value, size, ttl_ms, max_entries, max_bytes, token = unpack(ARGV)
redis.call('SET', KEYS[4], value, 'PX', ttl_ms)
unindex(entry)
local count = redis.call('ZCARD', used)
if redis.call('ZCARD', expires) ~= count or redis.call('HLEN', sizes) ~= count + 1 then
  redis.call('DEL', used, expires, sizes)  -- the server evicted one of them; entries without index expire
end
drop_expired(100)
redis.call('ZADD', used, now, entry)
redis.call('ZADD', expires, now + ttl_ms * 1000, entry)
redis.call('HSET', sizes, entry, size)
redis.call('HINCRBY', sizes, 'total', size)
for _ = 1, 1000 do
  local is_full = redis.call('ZCARD', used) > tonumber(max_entries)
  if not is_full and tonumber(redis.call('HGET', sizes, 'total')) <= tonumber(max_bytes) then break end
  drop(redis.call('ZRANGE', used, 0, 0)[1])
end
for _, key in ipairs({{used, expires, sizes}}) do
  if redis.call('PTTL', key) < tonumber(ttl_ms) then redis.call('PEXPIRE', key, ttl_ms) end
end
if redis.call('GET', KEYS[5]) == token then redis.call('DEL', KEYS[5]) end
"""
_ABANDON = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"
_SIZE = f"""{_COMMON}
drop_expired(10000)
return {{redis.call('ZCARD', used), tonumber(redis.call('HGET', sizes, 'total')) or 0}}
"""


class SharedEntries:
    """Bytes by key in a Redis server, with LRU eviction. Thread-safe.

    A server that does not answer costs one timeout in ``PAUSE_S``: until then every key is a miss. A value that ``put``
    did not store for the very key is a miss too.

    Args:
        config: The bounds. Where processes have different ones, the smallest hold.
        url: The address of the server.
        timer: Monotonic clock in seconds, for the pauses.
        on_error: Called with the reason of each call that failed: ``connection``, ``timeout``, or ``refused`` by the
            server.

    Raises:
        ConfigurationError: The address is not valid.
    """

    def __init__(
        self, config: CacheConfig, url: str, timer: Callable[[], float], on_error: Callable[[str], object]
    ) -> None:
        self._config = config
        self._timer = timer
        self._on_error = on_error
        self._lock = threading.Lock()
        self._is_down = False
        self._paused_until = 0.0
        self._token = secrets.token_hex(8)
        try:
            self._redis: redis.Redis = redis.Redis.from_url(
                url,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                # Once, for a connection that the server has closed meanwhile; never after a timeout.
                retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
            )
        except (ValueError, TypeError):  # their text may contain the password
            raise ConfigurationError(
                "CacheConfig(url=…) is not a valid address of a Redis server.",
                remedy="Give one such as redis://:password@127.0.0.1:6379/0; encode special characters of the password "
                "as %XX.",
                setting="url",
            ) from None
        self._get, self._put, self._abandon, self._size = map(
            self._redis.register_script, (_GET, _PUT, _ABANDON, _SIZE)
        )

    def get(self, key: bytes) -> bytes | None:
        """See ``mechanism.Entries``."""
        found = self._ask(lambda: self._get([*_INDEX, *_keys(key)], [_entry(key), "", 0]))
        return _checked(key, found)

    def claim(self, key: bytes) -> bytes | None:
        """See ``mechanism.Entries``."""
        arguments: list[bytes | str | int] = [_entry(key), self._token, int(CLAIM_S * 1000)]
        wait_s, deadline = _FIRST_WAIT_S, time.monotonic() + CLAIM_S
        while (found := self._ask(lambda: self._get([*_INDEX, *_keys(key)], arguments))) == 0:
            if time.monotonic() > deadline:
                return None
            time.sleep(wait_s)  # another process computes it; a subscription would take a connection for each waiter
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        return _checked(key, found)

    def put(self, key: bytes, value: bytes) -> None:
        """See ``mechanism.Entries``."""
        config, size, ttl_ms = self._config, len(key) + len(value), max(1, int(self._config.ttl_s * 1000))
        bounds = [ttl_ms, config.max_entries, config.max_bytes]
        stored = _checksum(key, value) + value
        arguments: list[bytes | str | int] = [_entry(key), stored, size, *bounds, self._token]
        self._ask(lambda: self._put([*_INDEX, *_keys(key)], arguments))

    def abandon(self, key: bytes) -> None:
        """See ``mechanism.Entries``."""
        self._ask(lambda: self._abandon([_keys(key)[1]], [self._token]))

    def clear(self) -> None:
        """See ``mechanism.Entries``."""
        self._ask(self._unlink_all)

    def _unlink_all(self) -> None:
        with self._redis.pipeline(transaction=False) as calls:
            for key in self._redis.scan_iter(match=f"{_PREFIX}*", count=1000):
                calls.unlink(key)
            calls.execute()

    def size(self) -> tuple[int, int]:
        """See ``mechanism.Entries``."""
        entries, size_bytes = self._ask(lambda: self._size(_INDEX)) or (0, 0)
        return entries, size_bytes

    def _ask(self, call: Callable[[], T]) -> T | None:
        """The answer of the server; None if it fails, or is not asked because it failed a moment ago."""
        with self._lock:
            now = self._timer()
            if now < self._paused_until:
                return None
            if self._is_down:  # this thread tries whether it is back; the others do not wait for that
                self._paused_until = now + PAUSE_S
        try:
            answer = call()
        except redis.TimeoutError as error:
            self._went_down("timeout", error)
        except (redis.ConnectionError, OSError) as error:
            self._went_down("connection", error)
        except redis.RedisError as error:  # it answers, so the next call may succeed
            logger.debug("The shared cache refused a call: %s", error)
            self._on_error("refused")
        else:
            if self._is_down:
                logger.info("The shared cache answers again.")
                with self._lock:
                    self._is_down, self._paused_until = False, 0.0
            return answer
        return None

    def _went_down(self, reason: str, error: Exception) -> None:
        with self._lock:
            was_down, self._is_down = self._is_down, True
            self._paused_until = self._timer() + PAUSE_S
        if not was_down:
            logger.warning("The shared cache does not answer, so values are computed: %s", error)
        self._on_error(reason)


def _entry(key: bytes) -> bytes:
    return b"entry:" + key


def _keys(key: bytes) -> tuple[bytes, bytes]:
    """The keys of an entry, and of the claim to compute it."""
    return _PREFIX.encode() + _entry(key), _PREFIX.encode() + b"claim:" + key


def _checksum(key: bytes, value: bytes) -> bytes:
    # The key is hashed with its length, so that no other pair of key and value has the same text.
    return hashlib.blake2b(b"%d\n%b%b" % (len(key), key, value), digest_size=_CHECKSUM_BYTES).digest()


def _checked(key: bytes, found: object) -> bytes | None:
    """The value of an entry that ``put`` stored for the key; None for anything else."""
    if not isinstance(found, bytes):
        return None
    value = found[_CHECKSUM_BYTES:]
    return value if _checksum(key, value) == found[:_CHECKSUM_BYTES] else None
