"""Whose key it is. What the database said is believed for a few seconds (`ITEMFORGE_KEY_CACHE`), so that a
call costs no look-up and a revoked key is refused that soon.

While the database is away, keys seen within that time go on; then nobody is let in but by the bootstrap key.
"""

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from itemforge.errors import ConfigurationError, DatabaseUnavailable
from itemforge.gateway.listening import is_loopback
from itemforge.jobs import keys, sessions
from itemforge.jobs.database import Database
from itemforge.jobs.keys import Content, Key, Role, digest
from itemforge.settings import GatewaySettings

log = structlog.get_logger(__name__)

#: Keys remembered at once; the ones used longest ago are looked up again.
_MAX_REMEMBERED = 1000


@dataclass(frozen=True)
class Caller:
    """Who calls. `sees` is the owner whose requests are visible; None: everybody's.

    `rate` (submissions a minute) and `quota` (images a day) are 0 where there is no limit. `content`: None leaves it
    to the gateway's setting.
    """

    owner: str
    role: Role
    sees: str | None = None
    rate: int = 0
    quota: int = 0
    content: Content | None = None
    key_id: str | None = None
    digest: str | None = None
    name: str = ""


ADMIN = Caller("admin", Role.ADMIN, key_id="bootstrap")
WORKER = Caller("embedded", Role.WORKER, sees="embedded", key_id="embedded")
#: A loopback gateway without any key.
LOCAL = Caller("local", Role.ADMIN)
#: Seed routes that are open to a trusted network, whose callers are not told apart.
OPEN = Caller("open", Role.USER)
#: Reads what is public.
PUBLIC = Caller("public", Role.USER, sees="public")


@dataclass(frozen=True)
class _Remembered:
    caller: Caller
    until: float


@dataclass(frozen=True)
class _Session:
    key_digest: str
    until: float


class Keyring:
    """`worker_key`: of the worker that the embedded system runs itself; it lives as long as the process."""

    def __init__(
        self,
        settings: GatewaySettings,
        db: Database,
        migrated: asyncio.Event,
        worker_key: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._db = db
        self._migrated = migrated
        self._clock = clock
        self._fixed: list[tuple[str, Caller]] = []
        if settings.admin_key and (secret := settings.admin_key.get_secret_value()):
            self._fixed.append((digest(secret), ADMIN))
        self._bootstrap = bool(self._fixed)
        if worker_key:
            self._fixed.append((digest(worker_key), WORKER))
        self._key_made = False
        self._keyless_until = 0.0
        #: By digest. Entries past their time still say that the key was good once, which the throttle respects.
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        #: By the digest of the cookie.
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    async def required(self) -> bool:
        """Whether a call needs a key: always, but on a loopback gateway for which none was ever made.

        Raises:
            DatabaseUnavailable: it cannot be known now.
        """
        if self._bootstrap or self._key_made or not is_loopback(self._settings.host):
            return True
        began = self._clock()
        if began < self._keyless_until:
            return False
        self._check_migrated()
        # Also a revoked key counts: ending the last one must not open the gateway to everybody.
        if await keys.any_made(self._db):
            self._key_made = True
            return True
        self._keyless_until = began + self._settings.key_cache
        return False

    def was_good(self, key_digest: str) -> bool:
        """Whether this key let somebody in before; perhaps not any more."""
        return self._match_fixed(key_digest) is not None or key_digest in self._remembered

    async def find(self, key_digest: str) -> Caller | None:
        """Whose live key has this digest.

        Raises:
            DatabaseUnavailable: it is not known from before, and cannot be looked up.
        """
        if (caller := self._match_fixed(key_digest)) is not None:
            return caller
        known = self._remembered.get(key_digest)
        if known is not None and self._clock() < known.until:
            self._remembered.move_to_end(key_digest)
            return known.caller
        self._check_migrated()
        return await self._look_up(key_digest)

    async def find_session(self, cookie: str) -> Caller | None:
        """Whose session a browser's cookie is; None when it has ended, or its key has.

        Raises:
            DatabaseUnavailable: as `find`.
        """
        session_digest = digest(cookie)
        known = self._sessions.get(session_digest)
        if known is None or self._clock() >= known.until:
            self._check_migrated()
            until = self._clock() + self._settings.key_cache
            key_digest = await sessions.key_of(self._db, session_digest)
            if key_digest is None:
                self._sessions.pop(session_digest, None)
                return None
            known = self._sessions[session_digest] = _Session(key_digest, until)
            self._sessions.move_to_end(session_digest)
            while len(self._sessions) > _MAX_REMEMBERED:
                self._sessions.popitem(last=False)
        return await self.find(known.key_digest)

    def forget_session(self, cookie: str) -> None:
        """It was ended here; other gateways hear of it within `ITEMFORGE_KEY_CACHE`."""
        self._sessions.pop(digest(cookie), None)

    async def still_good(self, caller: Caller) -> bool:
        """For calls that go on for long: whether the key that began them is live. True while nobody can say."""
        if caller.digest is None:
            return True
        try:
            return await self.find(caller.digest) is not None
        except DatabaseUnavailable:
            return True

    def _match_fixed(self, key_digest: str) -> Caller | None:
        matches = [caller for known, caller in self._fixed if hmac.compare_digest(known, key_digest)]
        return matches[0] if matches else None

    async def _look_up(self, key_digest: str) -> Caller | None:
        began = self._clock()
        key = await keys.find(self._db, key_digest)
        if key is None or key.revoked_at is not None:
            self._remembered.pop(key_digest, None)
            if key is not None:
                log.warning("revoked_key_used", key=key.id, name=key.name)
            return None
        caller = self._caller(key, key_digest)
        self._remembered[key_digest] = _Remembered(caller, began + self._settings.key_cache)
        self._remembered.move_to_end(key_digest)
        while len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        if key.use_is_old:
            await self._note_use(key)
        return caller

    async def _note_use(self, key: Key) -> None:
        try:
            await keys.note_use(self._db, key)
        except DatabaseUnavailable as error:
            log.warning("key_use_not_noted", key=key.id, reason=str(error))

    def _caller(self, key: Key, key_digest: str) -> Caller:
        owner = f"key:{key.id}"
        limited = key.role is Role.USER
        rate, quota = (self._settings.rate_limit, self._settings.quota) if limited else (0, 0)
        return Caller(
            owner=owner,
            role=key.role,
            sees=None if key.role is Role.ADMIN else owner,
            rate=rate if key.rate is None else key.rate,
            quota=quota if key.quota is None else key.quota,
            content=key.content,
            key_id=key.id,
            digest=key_digest,
            name=key.name,
        )

    def _check_migrated(self) -> None:
        if not self._migrated.is_set():
            raise DatabaseUnavailable("the database is not ready yet; try again")


async def check_exposure(settings: GatewaySettings, db: Database) -> None:
    """Refuse to be reachable by others while nobody could come in properly.

    Raises:
        ConfigurationError: not on loopback, no bootstrap key, and no live key that can ask for pictures.
        DatabaseUnavailable: it cannot be known now.
    """
    bootstrap = settings.admin_key is not None and settings.admin_key.get_secret_value()
    if bootstrap or is_loopback(settings.host) or await keys.anybody_can_ask(db):
        return
    raise ConfigurationError(
        f"listening on {settings.host} needs keys, and the database has no live user or admin key: make one "
        "(itemforge keys create --name NAME --role admin), or set ITEMFORGE_ADMIN_KEY "
        "(for example to the output of `openssl rand -hex 32`), or listen on 127.0.0.1"
    )
