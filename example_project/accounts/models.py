"""Users of the example project."""

from __future__ import annotations

import uuid

from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    """A user whose primary key is a UUID, as on many sites."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
