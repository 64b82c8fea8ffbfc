from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from django.core.cache import cache
from django.test import Client
from rest_framework.throttling import ScopedRateThrottle

from example_project.demo import structures
from tests.servers import free_port
from zndraw_joblib.contrib import throttling

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clear_throttles():
    cache.clear()
    throttling._left.clear()


def test_rotate_turns_the_atoms_around_their_centre():
    atoms = Atoms("Ar2", [[1, 0, 0], [3, 0, 0]])
    (turned,) = structures.rotate([atoms], 90, "z")
    assert np.allclose(turned.positions, [[2, -1, 0], [2, 1, 0]])
    assert np.allclose(atoms.positions, [[1, 0, 0], [3, 0, 0]])


def test_select_within_returns_the_atoms_within_a_distance():
    atoms = Atoms("Ar4", [[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3.1]])
    assert structures.select_within(atoms, 0, 2.0) == [1, 2]
    with pytest.raises(ValueError, match="atom 4 does not exist"):
        structures.select_within(atoms, 4, 1)


def test_a_histogram_counts_known_distances():
    atoms = Atoms("Ar3", [[0, 0, 0], [1, 0, 0], [3, 0, 0]])
    counts, edges = structures.distance_histogram([atoms, atoms], 4, 4.0)
    assert counts.tolist() == [0, 2, 2, 2]
    assert edges.tolist() == [0, 1, 2, 3, 4]


def test_a_trajectory_survives_a_round_trip_through_xyz():
    frames = list(structures.argon_frames(frames=2))
    parsed = structures.from_xyz(structures.to_xyz(frames))
    assert np.allclose(parsed[1].positions, frames[1].positions, atol=1e-6)
    assert not np.allclose(parsed[0].positions, parsed[1].positions)
    with pytest.raises(Exception, match=r".+"):
        structures.from_xyz("nonsense")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p%40ss@db:5433/name", ["db", 5433, "u", "p@ss", "name"]),
        ("postgresql://u@%2Ftmp%2Fpg/name", ["/tmp/pg", "", "u", "", "name"]),
    ],
)
def test_database_urls_become_settings(url, expected, tmp_path):
    code = (
        "import json; from example_project.settings import DATABASES, CHANNEL_LAYERS, CACHES\n"
        "d = DATABASES['default']\n"
        "print(json.dumps([[d[k] for k in ('HOST','PORT','USER','PASSWORD','NAME')],"
        "d['OPTIONS']['pool'], CHANNEL_LAYERS['default']['BACKEND'],"
        "CACHES['default']['BACKEND']]))"
    )
    env = {"DATABASE_URL": url, "REDIS_URL": "redis://x:1/0", "DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    values, pool, layer, cache = json.loads(done.stdout)
    assert values == expected
    assert pool["max_size"] == 8
    assert layer == "channels_redis.pubsub.RedisPubSubChannelLayer"
    assert cache == "django_redis.cache.RedisCache"


def test_redis_modules_are_imported_at_start_and_not_by_a_request(tmp_path):
    code = (
        "import sys, django; django.setup(); loaded = set(sys.modules)\n"
        "from channels.layers import get_channel_layer\n"
        "from django.core.cache import caches\n"
        "get_channel_layer(); caches['default'].get('key')\n"
        "late = {name.partition('.')[0] for name in set(sys.modules) - loaded}\n"
        "assert {'redis', 'channels_redis'} <= loaded and not {'redis', 'channels_redis'} & late\n"
    )
    environment = {
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
        "REDIS_URL": f"redis://127.0.0.1:{free_port()}",
        "DATA_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.django_db
def test_a_user_name_and_password_are_exchanged_for_a_token(client, bob):
    bob.user.set_password("correct horse")
    bob.user.save()
    body = {"username": "bob", "password": "correct horse"}
    answer = client.post("/v1/auth/token", body, content_type="application/json")
    assert answer.json() == {"token": bob.token}
    body["password"] = "wrong"
    answer = client.post("/v1/auth/token", body, content_type="application/json")
    assert answer.status_code == 400


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("proxies", "codes"), [(0, [400, 400, 429, 429, 429]), (1, [400, 400, 429, 400, 400])]
)
def test_a_forged_address_does_not_evade_the_throttle(
    client, settings, monkeypatch, proxies, codes
):
    monkeypatch.setitem(ScopedRateThrottle.THROTTLE_RATES, "token", "2/day")
    if proxies:
        settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": proxies}
    # A proxy appends the last address.
    forwarded_for = ["192.0.2.1, 198.51.100.1", "192.0.2.2, 198.51.100.1", "198.51.100.1"]
    forwarded_for += ["198.51.100.2", "198.51.100.1, 198.51.100.2"]
    answers = [
        client.post(
            "/v1/auth/token", {}, content_type="application/json", headers={"X-Forwarded-For": name}
        )
        for name in forwarded_for
    ]
    assert [answer.status_code for answer in answers] == codes


@pytest.mark.parametrize(("deployed", "expected"), [(True, "1"), (False, "0")])
def test_the_number_of_proxies_is_one_in_the_deployment_and_else_zero(deployed, expected, tmp_path):
    lines = (ROOT / "docs" / "deploy" / "joblib.env").read_text().splitlines()
    pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    code = "from example_project.settings import REST_FRAMEWORK as r; print(r['NUM_PROXIES'])"
    env = {**(dict(pairs) if deployed else {}), "DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


BODIES = {
    "deep": (b"[" * 5000, 400),
    "deep in a string's place": (b'{"content":' + b"[" * 5000 + b"]" * 5000 + b"}", 400),
    "too large": (b'{"content": "' + b"x" * 3_000_000 + b'"}', 413),
    "not a number": (b'{"content": NaN}', 400),
    "not utf-8": (b'{"content": "\xff"}', 400),
    "a lone surrogate": (b'{"content": "\\ud800", "username": "\\ud800"}', 400),
    "nul": (b'{"content": "\\u0000", "username": "\\u0000"}', 400),
    "no object": (b"[]", 400),
    "nothing": (b"", 400),
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", BODIES)
def test_invalid_bodies_to_the_sites_own_endpoints_are_refused(bob, name):
    body, expected = BODIES[name]
    # With a session DRF reads the body, too, because it looks for the CSRF token there.
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(bob.user)
    for client, allowed in ((bob.client, {expected}), (browser, {expected, 403})):
        client.raise_request_exception = False
        answer = client.generic("POST", "/v1/auth/token", body, content_type="application/json")
        assert answer.status_code in allowed, answer.content
        assert answer["Content-Type"] == "application/json"


@pytest.mark.django_db
@pytest.mark.parametrize("media_type", ["*/*", "application/*", "text/plain", "", "a"])
def test_the_sites_own_endpoints_accept_only_json(bob, media_type):
    answer = bob.client.generic("POST", "/v1/auth/token", b"{}", content_type=media_type)
    assert answer.status_code == 415
    assert list(answer.json()) == ["detail"]


def demo(tmp_path, **extra):
    env = {
        **{k: v for k, v in os.environ.items() if k not in {"DATABASE_URL", "REDIS_URL"}},
        "DATA_DIR": str(tmp_path),
        "PORT": str(free_port()),
        "ONCE": "1",
        **extra,
    }
    return subprocess.run(
        [sys.executable, "-m", "example_project.demo.run"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.demo
def test_the_demo_completes_and_can_be_repeated(tmp_path):
    for _ in range(2):
        done = demo(tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "frames, " in done.stdout
        for job in (
            "modifiers:Simulate",
            "modifiers:Rotate",
            "selections:SelectWithin",
            "analysis:DistanceHistogram",
        ):
            assert f"@global:{job} completed" in done.stdout


@pytest.mark.demo
def test_the_demo_fails_when_a_result_is_missing(tmp_path):
    # The server does not allow the categories of the worker's jobs, so it cannot register them.
    done = demo(tmp_path, ZNDRAW_JOBLIB_ALLOWED_CATEGORIES='["modifiers"]')
    assert done.returncode == 1
    assert "The demo failed" in done.stderr


@pytest.mark.demo
def test_the_error_for_a_taken_port_shows_how_to_choose_another(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = demo(tmp_path, PORT=str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "make demo PORT=" in done.stderr
