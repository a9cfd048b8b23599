"""Rate limits: what a request costs, who pays for it, and what the answer says about it.

Why a charge is an object: a request is charged before its body is read and may turn out to cost more (a batch) or
nothing (a 304). Only whoever made the charge can change it, once, and never to more than was taken.
"""

from dataclasses import dataclass
from threading import Lock
from typing import Final

from taskade_server.http.admission.buckets import Buckets, MemoryBuckets
from taskade_server.http.admission.valkey_buckets import SharedBuckets, Valkey
from taskade_server.http.wire.addresses import subscriber
from taskade_server.http.wire.reply import Headers
from taskade_server.kit.errors import RateLimited

_MINUTE: Final = 60_000_000_000
_SECOND: Final = 1_000_000_000
_UNBOUNDED: Final = 2**52
_MAX_TERMS: Final = 1000
USER_SHARE: Final = 4
"""How many keys' worth of requests all keys of one user may make together."""
_OPERATOR: Final = "Whoever runs this server can change that with --rate-limit or TASKADE_RATE_LIMIT."
KEYS: Final = f"Each key may make {{rate}} requests a minute; wait {{wait}} s. {_OPERATOR}"
_OWN: Final = "The rate_limit of this key is {rate} requests a minute; wait {wait} s."
_ANONYMOUS: Final = "From one address {rate} requests a minute may come without an API key; wait {wait} s."
_USER: Final = f"All keys of one user together may make {{rate}} requests a minute; wait {{wait}} s. {_OPERATOR}"
_LOGIN: Final = "Too many wrong API keys came from this address; wait {wait} s."


@dataclass(frozen=True, slots=True)
class Policy:
    """A rate for each caller. `name` is what the headers call it; no rate: only callers with one of their own.

    `burst` is how much a caller may use at once, a minute's worth if it is not said. `most` bounds the rate that a
    caller may have of its own, which is otherwise bounded by `per_minute`.
    """

    name: str
    per_minute: int | None
    burst: int | None = None
    most: int | None = None
    advice: str = "The limit is {rate} requests a minute; wait {wait} s."

    def terms(self, own_rate: int | None) -> "_Terms | None":
        """What holds for a caller with (or without) a rate of its own; None: no limit."""
        bounds = [rate for rate in (own_rate, self.most or self.per_minute) if rate]
        rate = min(bounds) if own_rate else self.per_minute
        if not rate:
            return None
        burst = rate if self.burst is None else self.burst if own_rate is None else min(self.burst, rate)
        return _Terms(self.name, rate, burst, _OWN if own_rate == rate != self.per_minute else self.advice)


def of_user(keys: Policy) -> Policy:
    """What all keys of one user may do together: as much as some keys that use the highest rate a key may have."""
    highest = keys.per_minute and max(keys.per_minute, keys.most or 0)
    burst = max(keys.burst, keys.per_minute or 0) if keys.burst is not None else highest
    return Policy("user", highest and USER_SHARE * highest, burst and USER_SHARE * burst, advice=_USER)


class _Terms:
    """A rate and a burst, as time, and the headers that follow from them alone."""

    __slots__ = ("advice", "capacity", "interval", "limit_header", "name", "policy_header", "rate")

    def __init__(self, name: str, rate: int, burst: int, advice: str) -> None:
        self.name = name.encode()
        self.advice = advice
        self.rate = rate
        self.interval = -(-_MINUTE // rate)
        self.capacity = burst * self.interval
        self.policy_header = (b"ratelimit-policy", b'"%b";q=%d;w=60' % (self.name, rate))
        self.limit_header = (b"x-ratelimit-limit", b"%d" % burst)

    def headers(self, level: int, reset: int) -> Headers:
        """The draft's structured fields (draft-ietf-httpapi-ratelimit-headers-11) and the older X- names."""
        remaining = (self.capacity - level) // self.interval if level < self.capacity else 0
        return [
            self.policy_header,
            (b"ratelimit", b'"%b";r=%d;t=%d' % (self.name, remaining, reset)),
            self.limit_header,
            (b"x-ratelimit-remaining", b"%d" % remaining),
            (b"x-ratelimit-reset", b"%d" % reset),
        ]


class Limiter:
    """One policy, applied to callers by name. `buckets` keeps the levels: in this process, or in Valkey."""

    def __init__(self, policy: Policy, buckets: Buckets | None = None) -> None:
        self.policy = policy
        self.buckets: Buckets = MemoryBuckets() if buckets is None else buckets
        self.refused = 0
        self._terms: dict[int | None, _Terms | None] = {}
        self._lock = Lock()

    def charge(
        self, caller: str, cost: int = 1, own_rate: int | None = None, might_cost: int = 1, now: int | None = None
    ) -> "Charge":
        """Charge a caller; RateLimited (with Retry-After) if the budget does not allow it.

        A cost above the burst is admitted when the whole burst is there, and what it takes too much is to be waited for
        afterwards. Who may raise the charge later says how far, so that waiting as told is enough for that, too.
        """
        terms = self._terms_of(own_rate)
        if terms is None:
            return FREE
        wait, level, at = self.buckets.pour(caller, cost * terms.interval, terms.capacity, now=now)
        if wait:
            most = might_cost * terms.interval
            raise self._refusal(terms, cost, max(wait, level + most - max(terms.capacity, most)), level)
        return Charge(self, caller, terms, cost, at, level)

    def check(self, caller: str, own_rate: int | None = None, now: int | None = None) -> None:
        """RateLimited if a charge of one would be refused now; charges nothing."""
        terms = self._terms_of(own_rate)
        if terms is not None:
            wait, level, _ = self.buckets.pour(caller, terms.interval, terms.capacity, commit=False, now=now)
            if wait:
                raise self._refusal(terms, 1, wait, level)

    def note(self, caller: str, cost: int = 1, now: int | None = None) -> None:
        """Charge for what has happened already; never refused, so a debt may come of it."""
        terms = self._terms_of(None)
        if terms is not None:
            self.buckets.pour(caller, cost * terms.interval, _UNBOUNDED, now=now)

    def recharge(self, charge: "Charge", cost: int, now: int | None = None) -> Headers:
        """Make a charge one of another cost, in one step. If that is refused, nothing of it stays charged."""
        terms = charge.terms
        assert terms is not None
        back, charge.cost = charge.cost * terms.interval, 0
        wait, level, at = self.buckets.pour(
            charge.caller, cost * terms.interval, terms.capacity, back, charge.at, now=now
        )
        if wait and cost:
            raise self._refusal(terms, cost, wait, level)
        charge.cost, charge.at, charge.level = cost, at, level
        return charge.headers

    def _terms_of(self, own_rate: int | None) -> _Terms | None:
        try:
            return self._terms[own_rate]
        except KeyError:
            if len(self._terms) >= _MAX_TERMS:
                self._terms.clear()
            return self._terms.setdefault(own_rate, self.policy.terms(own_rate))

    def _refusal(self, terms: _Terms, cost: int, wait: int, level: int) -> RateLimited:
        with self._lock:
            self.refused += 1
        seconds = _seconds(wait)
        detail = terms.advice.format(rate=terms.rate, wait=seconds)
        if cost > 1:
            detail = f"This request counts as {cost}. {detail}"
        headers = {name.decode(): value.decode() for name, value in terms.headers(level, seconds)}
        return RateLimited(
            detail,
            headers={"retry-after": str(seconds), **headers},
            extra={"violated-policies": [self.policy.name]},
        )


class Charge:
    """What one request was charged. `headers` tell the client where that leaves it.

    `also` is the charge of the same request to another budget, the one of the key's user: both hold, and both change.
    """

    __slots__ = ("also", "at", "caller", "cost", "level", "limiter", "terms")

    def __init__(
        self, limiter: Limiter | None, caller: str, terms: _Terms | None, cost: int, at: int, level: int
    ) -> None:
        self.limiter = limiter
        self.caller = caller
        self.terms = terms
        self.cost = cost
        self.at = at
        self.level = level
        self.also: Charge | None = None

    @property
    def headers(self) -> Headers:
        """The headers of the answer."""
        return [] if self.terms is None else self.terms.headers(self.level, _seconds(self.level))

    def raise_to(self, cost: int, now: int | None = None) -> Headers:
        """The request costs this much in all; RateLimited, and nothing charged, if the budget does not allow it."""
        try:
            return self._change(cost, now)
        except RateLimited:
            self._change(0, now)
            raise

    def give_back(self, now: int | None = None) -> Headers:
        """The request costs nothing after all. Harmless when repeated."""
        return self._change(0, now)

    def _change(self, cost: int, now: int | None) -> Headers:
        if self.limiter is not None and cost != self.cost:
            self.limiter.recharge(self, cost, now)
        if self.also is not None:
            self.also._change(cost, now)
        return self.headers


FREE: Final = Charge(None, "", None, 0, 0, 0)
"""The charge of a caller without a limit."""


class Limits:
    """All limits of an installation: by key and user, and by address for requests without a key or with a wrong one."""

    def __init__(
        self,
        keys: Limiter | None = None,
        anonymous: Limiter | None = None,
        login: Limiter | None = None,
        valkey: Valkey | None = None,
        users: Limiter | None = None,
    ) -> None:
        self._keys = keys
        self._users = users
        self._anonymous = anonymous
        self._login = login
        self._valkey = valkey

    @classmethod
    def of(cls, keys: Policy, anonymous: int | None, login: int | None, valkey_url: str | None = None) -> "Limits":
        """The limits of one process, counted together with others where there is a Valkey. ValueError for its URL."""
        valkey = None
        if valkey_url is not None:
            valkey = Valkey(valkey_url)
            valkey.look()

        def limiter(policy: Policy) -> Limiter:
            return Limiter(policy, None if valkey is None else SharedBuckets(valkey, policy.name))

        return cls(
            limiter(keys),
            None if anonymous is None else limiter(Policy("anonymous", anonymous, advice=_ANONYMOUS)),
            None if login is None else limiter(Policy("login", login, advice=_LOGIN)),
            valkey,
            limiter(of_user(keys)),
        )

    @property
    def waits(self) -> bool:
        """Whether a call may wait for the network, so that it has no place on the event loop."""
        return self._valkey is not None

    def charge(
        self, caller: str, cost: int = 1, own_rate: int | None = None, might_cost: int = 1, *, user: str = ""
    ) -> Charge:
        """Charge a key, and with it its user; RateLimited, and nothing charged, if either budget does not allow it.

        `might_cost` is how far the charge may be raised once more is known, for a batch.
        """
        if self._keys is None:
            return FREE
        charge = self._keys.charge(caller, cost, own_rate, might_cost)
        if user and self._users is not None and charge is not FREE:
            try:
                charge.also = self._users.charge(user, cost, None, might_cost)
            except RateLimited:
                charge.give_back()
                raise
        return charge

    def anonymous(self, address: str) -> Headers:
        """Charge an address for a request without a credential; RateLimited if there were too many."""
        return [] if self._anonymous is None else self._anonymous.charge(subscriber(address)).headers

    def login_check(self, address: str) -> None:
        """RateLimited if an address has failed too often; ask before looking at a credential not seen before."""
        if self._login is not None:
            self._login.check(subscriber(address))

    def login_failed(self, address: str) -> None:
        """Count a wrong credential. After too many from one address, `login_check` refuses the next."""
        if self._login is not None:
            self._login.note(subscriber(address))

    def refused(self) -> dict[str, int]:
        """How many requests each policy has refused, in this process."""
        limiters = (self._keys, self._users, self._anonymous, self._login)
        return {limiter.policy.name: limiter.refused for limiter in limiters if limiter is not None}

    def shared(self) -> bool | None:
        """Whether the limits are counted together with other processes now; None without a Valkey."""
        return None if self._valkey is None else self._valkey.answers

    def close(self) -> None:
        """Close the connections."""
        if self._valkey is not None:
            self._valkey.close()


def _seconds(nanoseconds: int) -> int:
    return -(-nanoseconds // _SECOND)
