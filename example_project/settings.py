"""A complete host of the job server.

From the environment: SECRET_KEY, DEBUG, ALLOWED_HOSTS, DATABASE_URL, REDIS_URL, DATA_DIR,
DEMO_KEY (set by `make demo`: the secret of the link that signs in the demo's user),
THROTTLE_RATES (`joblib_submit=10/s,joblib_work=100/s`), NUM_PROXIES (the number of proxies in
front, each of which sets or extends X-Forwarded-For), TRANSACTION_POOLING (the database is behind
pgbouncer in transaction mode) and BEHIND_TLS_PROXY (a proxy terminates TLS).
Without any of them the site uses SQLite and an in-memory channel layer.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import dj_database_url
from environs import Env

BASE_DIR = Path(__file__).resolve().parent.parent

env = Env()
DATA_DIR = Path(env.str("DATA_DIR", str(BASE_DIR / ".demo")))
DATA_DIR.mkdir(parents=True, exist_ok=True)
# The files of tasks; nothing else of this project is stored there, and no address serves it.
MEDIA_ROOT = DATA_DIR / "media"


def stored_secret_key() -> str:
    """The secret key in the data folder, made at the first start; all processes share it."""
    path = DATA_DIR / "secret_key"
    try:
        with path.open("x") as file:
            path.chmod(0o600)
            file.write(secrets.token_urlsafe(50))
    except FileExistsError:
        pass
    return path.read_text()


SECRET_KEY = env.str("SECRET_KEY", "") or stored_secret_key()
DEBUG = env.bool("DEBUG", False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
DATABASE_URL = env.str("DATABASE_URL", "")
# Seconds for which a thread keeps its database connection. wsgi.py sets it, because the threads of
# a WSGI server last. With 0 PostgreSQL gets a pool, because Django's ASGI handler makes a thread
# for each request and would leak its connection. SQLite closes a connection with its thread.
CONN_MAX_AGE = env.int("CONN_MAX_AGE", 0)
REDIS_URL = env.str("REDIS_URL", "")
DEMO_KEY = env.str("DEMO_KEY", "")
TRANSACTION_POOLING = env.bool("TRANSACTION_POOLING", False)

if env.bool("BEHIND_TLS_PROXY", False):
    # Trusted, because the proxy overwrites this header of the client.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework.authtoken",
    "channels",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "zndraw_joblib",
    "example_project.accounts",
]

# All of these are async-capable, because without `ApiLane` a sync-only middleware would occupy a
# thread for each request that waits.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "example_project.policy.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

if DEMO_KEY:
    # After the sessions. In the demo alone, because each answer of the API would vary by language.
    MIDDLEWARE.insert(3, "django.middleware.locale.LocaleMiddleware")

ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
ASGI_APPLICATION = "example_project.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "example_project" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "example_project.rooms.context.demo",
            ]
        },
    }
]


def sqlite() -> dict[str, Any]:
    """SQLite for several threads and processes: one writer at a time, concurrent readers."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "db.sqlite3",
        "OPTIONS": {
            # Takes the write lock at BEGIN, because a later upgrade fails beside another writer.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
        "CONN_MAX_AGE": CONN_MAX_AGE or 60,
        # A file, because an in-memory database belongs to one process, and the tests start several.
        "TEST": {"NAME": DATA_DIR / "test.sqlite3"},
    }


def database(url: str) -> dict[str, Any]:
    """The settings of the database at a URL; PostgreSQL with psycopg's pool."""
    config: dict[str, Any] = dict(dj_database_url.parse(url, conn_health_checks=True))
    if config["ENGINE"] == "django.db.backends.sqlite3":
        return {**sqlite(), "NAME": config["NAME"]}
    if config["ENGINE"] == "django.db.backends.postgresql":
        config["ENGINE"] = "zndraw_joblib.contrib.postgresql"
        config["CONN_MAX_AGE"] = CONN_MAX_AGE
        options = config.setdefault("OPTIONS", {})
        if not CONN_MAX_AGE:
            options["pool"] = {"min_size": 2, "max_size": 8, "timeout": 10}
        if TRANSACTION_POOLING:
            # Without prepared statements and cursors on the server, because the next transaction
            # may use another session. pgbouncer.ini sets the startup options.
            config["DISABLE_SERVER_SIDE_CURSORS"] = True
            return config
        # Prepares the job server's statements, because planning takes longer than executing them.
        options["prepare_threshold"] = 1
        # statement_timeout ends queries that hang. The other timeout ends transactions that are
        # left open, because vacuum cannot clean the tables meanwhile. random_page_cost is that of
        # an SSD, because the default makes the planner avoid the index of a queue that was long.
        # jit is off, because compiling takes longer than these statements do.
        options["options"] = (
            "-c statement_timeout=30s -c idle_in_transaction_session_timeout=10s"
            " -c random_page_cost=1.1 -c jit=off"
        )
    return config


DATABASES = {"default": database(DATABASE_URL) if DATABASE_URL else sqlite()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

if REDIS_URL:
    CHANNEL_LAYERS: dict[str, Any] = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {
                # With timeouts, because a hung server would block each message for minutes.
                "hosts": [
                    {"address": REDIS_URL, "socket_timeout": 0.5, "socket_connect_timeout": 0.5}
                ],
                "capacity": 10_000,
            },
        }
    }
    CACHES: dict[str, Any] = {
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": REDIS_URL,
            "OPTIONS": {
                "SOCKET_TIMEOUT": 0.5,
                "SOCKET_CONNECT_TIMEOUT": 0.5,
                # Admits requests uncounted while Redis is down.
                "IGNORE_EXCEPTIONS": True,
            },
        }
    }
    DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS = True
else:
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels.layers.InMemoryChannelLayer",
            "CONFIG": {"capacity": 10_000},
        }
    }
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "first-page"
LOGOUT_REDIRECT_URL = "first-page"

REST_FRAMEWORK = {
    # The token first, because a 401 has the challenge of the first class.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "zndraw_joblib.contrib.authentication.CachedTokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["example_project.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_THROTTLE_CLASSES": ["zndraw_joblib.contrib.throttling.WindowRateThrottle"],
    # For each user and scope. Without joblib_read and joblib_work, the scopes of waits and workers.
    "DEFAULT_THROTTLE_RATES": {
        "token": "60/min",
        "joblib_submit": "1000/s",
        "joblib_register": "200/s",
        **env.dict("THROTTLE_RATES", {}),
    },
    # Throttles identify anonymous callers by address. Unset, DRF would trust any X-Forwarded-For.
    "NUM_PROXIES": env.int("NUM_PROXIES", 0),
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "zndraw_joblib example project",
    "DESCRIPTION": "A Django site that is a job server for remote workers.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "COMPONENT_SPLIT_PATCH": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "example_project.openapi.name_server_below_prefix",
    ],
}

ZNDRAW_JOBLIB: dict[str, Any] = {}
# Silenced behind pgbouncer, because pgbouncer.ini sets statement_timeout.
SILENCED_SYSTEM_CHECKS = ["zndraw_joblib.W007"] if TRANSACTION_POOLING else []

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LOCALE_PATHS = [BASE_DIR / "example_project" / "locale"]
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "example_project" / "static"]

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name} {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"zndraw_joblib": {"level": "INFO"}},
}
