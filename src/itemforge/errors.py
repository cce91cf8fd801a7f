"""Every error that ItemForge raises on purpose.

ItemForgeError
├── RetryableError             the infrastructure failed: the same work may succeed later
│   ├── BrokerUnavailable      the queue cannot be reached, or did not confirm in time
│   ├── StorageUnavailable     the object store cannot be reached or answered 5xx
│   ├── GatewayUnavailable     the gateway cannot be reached or answered 5xx
│   ├── DatabaseUnavailable    the database cannot be reached
│   ├── SourceUnavailable      where a model is pulled from cannot be reached or answered 5xx
│   └── EngineFailed           the engine process died, went silent or hit a device error
└── PermanentError             the input or the set-up is wrong: trying again changes nothing
    ├── InvalidMessage         a queue message that is not the wire contract
    ├── InvalidInput           a parameter that cannot be drawn (the message names it)
    ├── Unroutable             a message was published to a queue that does not exist
    ├── ObjectMissing          no object under that key
    ├── StyleNotFound          no such style or version
    ├── InvalidStyle           a style pack that cannot be used with this base model
    ├── ModelError             a model or LoRA file that cannot be loaded
    ├── GatewayRefused         the gateway answered 4xx
    ├── StaleEdit              a change to what somebody else has changed meanwhile
    ├── QuotaExceeded          an owner's images of a day are used up
    └── ConfigurationError     a setting is missing or contradicts another

The family decides what a worker does with a job: Retryable goes back by a retry queue, Permanent fails
the request with the error's text as its reason. So each text says what is wrong and what to do.
"""


class ItemForgeError(Exception):
    """Base of all errors raised on purpose."""


class RetryableError(ItemForgeError):
    """The infrastructure failed; the same work may succeed later."""


class BrokerUnavailable(RetryableError):
    """The queue cannot be reached, or did not confirm in time."""


class StorageUnavailable(RetryableError):
    """The object store cannot be reached or answered with a server error."""


class GatewayUnavailable(RetryableError):
    """The gateway cannot be reached or answered with a server error."""


class DatabaseUnavailable(RetryableError):
    """The database cannot be reached."""


class SourceUnavailable(RetryableError):
    """Where a model is pulled from cannot be reached, or does not answer as it should."""


class EngineFailed(RetryableError):
    """The engine process died, went silent or hit a device error."""


class PermanentError(ItemForgeError):
    """The input or the set-up is wrong; trying again changes nothing."""


class InvalidMessage(PermanentError):
    """A queue message that does not follow the wire contract."""


class InvalidInput(PermanentError):
    """A parameter that cannot be drawn."""


class Unroutable(PermanentError):
    """A message was published to a queue that does not exist."""


class ObjectMissing(PermanentError):
    """There is no object under that key."""


class StyleNotFound(PermanentError):
    """There is no such style, or no such version of it."""


class InvalidStyle(PermanentError):
    """A style pack that is malformed or made for another base model."""


class ModelError(PermanentError):
    """A model or LoRA file that cannot be loaded."""


class GatewayRefused(PermanentError):
    """The gateway answered with a client error.

    `status` is the HTTP status; `detail` the gateway's own words.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"the gateway refused the call ({status}): {detail}")
        self.status = status
        self.detail = detail


class StaleEdit(PermanentError):
    """What the change was made from is no longer what is there."""


class QuotaExceeded(PermanentError):
    """The owner's images of the last 24 hours are used up.

    `wait` is the seconds until enough of them are older; None when the quota is less than what is asked.
    """

    def __init__(self, quota: int, wait: float | None) -> None:
        super().__init__(f"the quota of {quota} images a day is used up")
        self.wait = wait


class ConfigurationError(PermanentError):
    """A setting is missing or contradicts another."""


def advice(message: str) -> str:
    """What a value must be, from pydantic's message about one that is not.

    >>> advice("Input should be a valid integer")
    'must be a valid integer'
    """
    said = message.removeprefix("Value error, ")
    return said.replace("Input should", "must").replace("String should", "must")
