"""Files of tasks in an S3 bucket, that of moto's server, by django-storages."""

from __future__ import annotations

from types import SimpleNamespace

import boto3
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

from tests.api.test_files import get, put
from tests.factories import problem
from zndraw_joblib.models import FileToDelete, TaskFile
from zndraw_joblib.services.files import delete_files_of, delete_marked_files

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.any_database]

#: More than the 8 MiB from which boto3 uploads in several parts.
LARGE = bytes(range(256)) * 40_000
SECRETS = {"access_key": "key", "secret_key": "secret"}


@pytest.fixture(scope="module")
def s3():
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="files")
    yield SimpleNamespace(client=client, url=f"http://{host}:{port}")
    running.stop()


@pytest.fixture
def bucket(s3, settings):
    """Keys of the stored objects; the site keeps files in this bucket."""
    use(settings, s3.url)

    def keys():
        listed = s3.client.list_objects_v2(Bucket="files").get("Contents", [])
        return [each["Key"] for each in listed]

    yield keys
    for key in keys():
        s3.client.delete_object(Bucket="files", Key=key)


def use(settings, url):
    quick = Config(connect_timeout=0.5, read_timeout=5, retries={"max_attempts": 0})
    options = {
        "bucket_name": "files",
        "endpoint_url": url,
        "region_name": "us-east-1",
        "client_config": quick,
        # Otherwise a file is read into memory before it is sent.
        "max_memory_size": 1_000_000,
        **SECRETS,
    }
    backend = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
    settings.STORAGES = {**settings.STORAGES, "zndraw_joblib": backend}


@pytest.fixture
def task(alice, bob):
    worker = bob.worker()
    bob.register(worker_id=worker)
    task_id = alice.submit().json()["id"]
    bob.claim(worker)
    return task_id


@pytest.mark.parametrize("content", [b"", b"hello", LARGE], ids=["empty", "small", "large"])
def test_a_file_in_a_bucket_comes_back_as_it_was(task, bob, bucket, content):
    assert put(bob, task, content=content).status_code == 201
    assert get(bob, task).sent == content
    assert len(bucket()) == 1


def test_a_range_of_a_file_in_a_bucket_is_sent(task, bob, bucket):
    put(bob, task, content=LARGE)
    answer = get(bob, task, Range="bytes=5000000-5000009")
    assert (answer.status_code, answer.sent) == (206, LARGE[5_000_000:5_000_010])


def test_a_replaced_file_is_deleted_from_the_bucket(task, bob, bucket):
    put(bob, task)
    put(bob, task, content=b"new")
    assert len(bucket()) == 1
    assert delete_files_of([task]) == 1
    assert delete_marked_files() == 1
    assert bucket() == []


def test_a_file_that_the_bucket_has_lost_is_not_found(task, bob, bucket, s3):
    put(bob, task)
    s3.client.delete_object(Bucket="files", Key=bucket()[0])
    problem(get(bob, task), "file-not-found", 404)


def test_a_bucket_that_is_away_is_a_503_and_deletions_are_repeated(task, bob, bucket, s3, settings):
    put(bob, task)
    use(settings, "http://127.0.0.1:9")
    problem(put(bob, task, content=b"new"), "storage-unavailable", 503)
    problem(get(bob, task), "storage-unavailable", 503)
    assert delete_files_of([task]) == 1
    assert delete_marked_files() == 0
    use(settings, s3.url)
    FileToDelete.objects.update(due_at="2020-01-01T00:00Z")
    # The file, and the upload that failed, of which nothing was stored.
    assert delete_marked_files() == 2
    assert (bucket(), TaskFile.objects.count()) == ([], 0)
