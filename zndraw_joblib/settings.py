"""The app's settings: Django's ``ZNDRAW_JOBLIB`` over environment variables over defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Self

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from zndraw_joblib.names import MAX_NAME_LENGTH
from zndraw_joblib.setting_types import Category, HookPath, Origin

#: Name of the dict in Django's settings.
SETTING = "ZNDRAW_JOBLIB"
ENV_PREFIX = f"{SETTING}_"
#: Longest time in days for which tasks are kept before they are deleted, a century.
MAX_RETENTION_DAYS = 36_500
NEEDS_USE_TZ = (
    "zndraw_joblib needs USE_TZ = True, because without it Django reads times without an offset, "
    "which are ambiguous for an hour each year."
)


class JobLibSettings(BaseSettings):
    """Every setting with its default.

    A host sets it in Django's ``ZNDRAW_JOBLIB`` dict or in the environment as
    ``ZNDRAW_JOBLIB_<NAME>`` (lists as JSON); the dict wins.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    allowed_categories: list[Category] = Field(
        default=["modifiers", "selections", "analysis"],
        description="Categories that a job may be registered under.",
    )
    worker_timeout_seconds: float = Field(
        default=60,
        gt=0,
        le=31_536_000,
        description="Seconds after which a worker without a heartbeat is removed, and the "
        "length of a task's lease.",
    )
    heartbeat_interval_seconds: float = Field(
        default=20,
        gt=0,
        le=31_536_000,
        description="Seconds between two heartbeats of the SDK's workers; at most a third of "
        "`worker_timeout_seconds`.",
    )
    sweeper_interval_seconds: float = Field(
        default=30,
        gt=0,
        le=31_536_000,
        description="Seconds between two sweeps of `manage.py run_sweeper`.",
    )
    long_poll_max_wait_seconds: int = Field(
        default=120,
        ge=0,
        le=86_400,
        description="Longest wait in seconds that the server grants to `Prefer: wait=N`; 0 grants "
        "no wait.",
    )
    task_max_retries: int = Field(
        default=0,
        ge=0,
        le=1_000,
        description="How often a task is run again whose worker died while it ran.",
    )
    idempotency_key_ttl_seconds: float = Field(
        default=86_400,
        gt=0,
        le=31_536_000,
        description="Seconds for which the server remembers the `Idempotency-Key` of a submit.",
    )
    prune_after_days: float | None = Field(
        default=None,
        gt=0,
        le=MAX_RETENTION_DAYS,
        description="Days after which `manage.py run_sweeper` deletes completed and cancelled "
        "tasks. None keeps them.",
    )
    prune_failed_after_days: float | None = Field(
        default=None,
        gt=0,
        le=MAX_RETENTION_DAYS,
        description="Days after which `manage.py run_sweeper` deletes failed tasks. None keeps "
        "them.",
    )
    statistics_days: int = Field(
        default=30,
        ge=7,
        le=MAX_RETENTION_DAYS,
        description="Days for which the statistics of the admin's dashboard are kept, and its "
        "failures after the last one with the same error.",
    )
    max_jobs_per_worker: int = Field(
        default=100,
        gt=0,
        description="Most jobs that one worker may offer; one more is `too-many-jobs` (409).",
    )
    max_workers_per_identity: int = Field(
        default=1_000,
        gt=0,
        description="Most workers that one identity may have; one more is `too-many-workers` "
        "(409).",
    )
    max_pending_per_room: int | None = Field(
        default=None,
        gt=0,
        le=2**31 - 1,
        description="Most pending tasks of a room; one more is `too-many-pending` (429). None "
        "means no limit.",
    )
    max_body_bytes: int = Field(
        default=1_048_576,
        gt=0,
        description="Largest request body in bytes; a larger one is `content-too-large` (413).",
    )
    max_payload_bytes: int = Field(
        default=262_144,
        gt=0,
        description="Largest payload of a task in bytes of JSON; a larger one is "
        "`invalid-payload` (422).",
    )
    max_schema_bytes: int = Field(
        default=65_536,
        gt=0,
        description="Largest JSON Schema of a job in bytes of JSON; a larger one is "
        "`validation-error` (400).",
    )
    max_schema_depth: int = Field(
        default=32,
        gt=0,
        le=64,
        description="Deepest nesting of a job's JSON Schema; a deeper one is `validation-error` "
        "(400).",
    )
    max_json_depth: int = Field(
        default=64,
        gt=0,
        le=200,
        description="Deepest nesting of a request's JSON body; a deeper one is `validation-error` "
        "(400).",
    )
    max_room_id_length: int = Field(
        default=MAX_NAME_LENGTH,
        gt=0,
        le=MAX_NAME_LENGTH,
        description="Most characters of a room id; a longer one is `invalid-room-id` (400).",
    )
    max_error_bytes: int = Field(
        default=8_192,
        gt=0,
        description="Longest error text of a task in bytes of UTF-8; a longer text is cut.",
    )
    max_result_bytes: int = Field(
        default=262_144,
        gt=0,
        description="Largest result of a task in bytes of JSON; a larger one is "
        "`result-too-large` (413).",
    )
    max_file_bytes: int = Field(
        default=104_857_600,
        gt=0,
        le=2**63 - 1,
        description="Largest file of a task in bytes; a larger one is `file-too-large` (413).",
    )
    max_files_per_task: int = Field(
        default=100,
        gt=0,
        description="Most files of a task, by their names; one more is `too-many-files` (409).",
    )
    max_log_bytes: int = Field(
        default=1_048_576,
        gt=0,
        le=2**31 - 1,
        description="Bytes of UTF-8 of a task's log that are kept; older text is cut.",
    )
    max_retries: int = Field(
        default=100,
        ge=0,
        le=1_000_000,
        description="Most retries that a job or a submit may ask for; more are `validation-error` "
        "(400).",
    )
    max_batch_size: int = Field(
        default=500,
        gt=0,
        le=1_024,
        description="Most tasks that one request submits, claims or reports on; more are "
        "`validation-error` (400).",
    )
    api_threads: int = Field(
        default=8,
        gt=0,
        le=1_000,
        description="Threads of each process in which the `ApiLane` answers requests.",
    )
    token_cache_seconds: float = Field(
        default=5,
        ge=0,
        le=3_600,
        description="Seconds for which a process's `CachedTokenAuthentication` remembers a token; "
        "0 queries the database at every request.",
    )
    max_page_size: int = Field(
        default=500,
        gt=0,
        le=10_000,
        description="Largest `limit` of a list; a larger one is `validation-error` (400).",
    )
    default_page_size: int = Field(
        default=100, gt=0, le=10_000, description="Entries of a list without `limit`."
    )
    metrics_max_jobs: int = Field(
        default=100,
        ge=0,
        le=10_000,
        description="Most jobs with a label of their own in the metrics, of `@global` and of rooms "
        "each; further ones are `other`.",
    )
    health_max_database_seconds: float = Field(
        default=1,
        gt=0,
        description="Seconds that a read of the database may take for a good `DatabaseCheck`.",
    )
    health_max_layer_seconds: float = Field(
        default=2,
        gt=0,
        description="Seconds that a message may take to arrive for a good `LayerCheck`.",
    )
    health_max_sweep_age_seconds: float = Field(
        default=120,
        gt=0,
        description="Longest time in seconds since the sweeper's last pass, and since the end of "
        "a lease that it has not recovered, for a good `SweeperCheck`.",
    )
    health_max_unclaimed_seconds: float = Field(
        default=3600,
        gt=0,
        description="Longest time in seconds for which the oldest unclaimed task may have been "
        "due for a good `UnclaimedCheck`.",
    )
    websocket_origins: list[Origin] = Field(
        default=[],
        description="Origins of pages that may open WebSockets, besides those of `ALLOWED_HOSTS` "
        'and of django-cors-headers: `"https://app.example.org"`, or `"https://.example.org"` with '
        'all subdomains. `"*"` admits every page, but without its cookies.',
    )
    identity: HookPath = Field(
        default="zndraw_joblib.access.default_identity",
        description="Dotted path of `identity(request) -> str`, the caller's identity.",
    )
    is_admin: HookPath = Field(
        default="zndraw_joblib.access.default_is_admin",
        description="Dotted path of `is_admin(request) -> bool`, whether the caller administers "
        "the job server.",
    )
    room_access: HookPath = Field(
        default="zndraw_joblib.access.default_room_access",
        description="Dotted path of `room_access(request, room_id, action) -> bool`, whether the "
        "caller may `read`, `submit` or `register` in the room.",
    )
    identity_label: HookPath | None = Field(
        default=None,
        description="Dotted path of `identity_label(identity) -> str`, the name that the admin "
        "shows beside an identity, or an empty text. None shows the `get_username` of the user "
        "whose primary key it is.",
    )
    tenant: HookPath | None = Field(
        default=None,
        description="Dotted path of `tenant(request) -> str`, the name of the tenant in whose "
        "schema or database the request finds its rows. None on a site without tenants.",
    )
    in_tenant: HookPath | None = Field(
        default=None,
        description="Dotted path of `in_tenant(tenant)`, a context manager in which the queries of "
        "the thread go to the tenant's schema or database.",
    )
    tenants: HookPath | None = Field(
        default=None,
        description="Dotted path of `tenants() -> Iterable[str]`, all tenants, for which "
        "`manage.py run_sweeper` sweeps.",
    )

    @model_validator(mode="after")
    def _all_hooks_of_tenants(self) -> Self:
        if len({hook is None for hook in (self.tenant, self.in_tenant, self.tenants)}) > 1:
            raise ValueError("set all of `tenant`, `in_tenant` and `tenants`, or none of them")
        return self

    @property
    def lease(self) -> timedelta:
        """The time for which a claim or a heartbeat reserves a task for its worker."""
        return timedelta(seconds=self.worker_timeout_seconds)

    @property
    def idempotency_key_ttl(self) -> timedelta:
        """The time for which the server remembers a key."""
        return timedelta(seconds=self.idempotency_key_ttl_seconds)

    def hook(self, name: str) -> Callable[..., Any]:
        """The callable that the setting `name` points to."""
        return import_string(getattr(self, name))  # type: ignore[no-any-return]


#: The settings in force; None before the first `get_settings`, and after a change.
_current: JobLibSettings | None = None


def get_settings() -> JobLibSettings:
    """The settings in force: built at the first call and again after `reset_settings`.

    Raises
    ------
    ImproperlyConfigured
        A key is unknown or a value is invalid, or Django's ``USE_TZ`` is off.
    """
    global _current
    if _current is None:
        _current = _build()
    return _current


def reset_settings() -> None:
    """Make the next `get_settings` read Django's settings and the environment again.

    Django's ``override_settings`` calls it; after a change of ``os.environ`` call it yourself.
    """
    global _current
    _current = None


def _build() -> JobLibSettings:
    if not django_settings.USE_TZ:
        # Refused here too, because servers other than `runserver` run no system checks.
        raise ImproperlyConfigured(NEEDS_USE_TZ)
    configured: Any = getattr(django_settings, SETTING, {})
    if not isinstance(configured, Mapping):
        raise ImproperlyConfigured(f"{SETTING} must be a dict.")
    try:
        return JobLibSettings(**configured)
    except ValidationError as error:
        raise ImproperlyConfigured(f"{SETTING}: {_describe(error)}") from error
    except SettingsError as error:  # An environment variable for a list is not JSON.
        raise ImproperlyConfigured(f"{SETTING}: {error}") from error


def _describe(error: ValidationError) -> str:
    """The text of a pydantic error in one line, with the name of each invalid setting."""
    return "; ".join(
        f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()
    )


def _reset_on_change(*, setting: str, **kwargs: Any) -> None:
    if setting in {SETTING, "USE_TZ"}:
        reset_settings()


setting_changed.connect(_reset_on_change, dispatch_uid="zndraw_joblib.settings")
