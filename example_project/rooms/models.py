"""The documents of a room."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Document(models.Model):
    """A named text in a room: a structure, a selection, a histogram."""

    room_id = models.CharField(max_length=128)
    name = models.CharField(max_length=128)
    content = models.TextField()
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("room_id", "name")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["room_id", "name"], name="rooms_document_unique")
        ]

    def __str__(self) -> str:
        return f"{self.room_id}/{self.name}"
