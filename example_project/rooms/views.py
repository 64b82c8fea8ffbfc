"""Documents of a room over REST, and the pages of the site.

The job server's hook `room_access` decides about documents too: a caller who may submit in a room
may write its documents.
"""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from example_project.errors import errors
from example_project.rooms.models import Document
from zndraw_joblib import Task
from zndraw_joblib.access import Action, Caller
from zndraw_joblib.names import room_error

DEMO_ROOM = "demo"
READ_ERRORS = errors(400, 401, 404, 405, 429)
WRITE_ERRORS = errors(400, 401, 403, 404, 405, 413, 415, 429)


class DocumentSerializer(serializers.ModelSerializer):
    """A document; its room and name are in its address."""

    class Meta:
        model = Document
        fields = ("room_id", "name", "content", "updated_at")
        read_only_fields = ("room_id", "name", "updated_at")


class DocumentName(serializers.Serializer):
    """The room and the name of a document, as an address has them."""

    room_id = serializers.CharField(max_length=128)
    name = serializers.CharField(max_length=128, required=False)

    def validate_room_id(self, room_id: str) -> str:
        """Validate the room id as the job server does."""
        if error := room_error(room_id):
            raise serializers.ValidationError(f"The room id {error}.")
        return room_id

    @classmethod
    def of(cls, request: Request, action: Action, **names: str) -> dict[str, str]:
        """The validated names in an address; raises unless the caller may take this action."""
        address = cls(data=names)
        address.is_valid(raise_exception=True)
        if not Caller(request).may(action, address.validated_data["room_id"]):
            if action == "read":
                raise NotFound
            raise PermissionDenied(f"You may not {action} in this room.")
        return address.validated_data


class DocumentList(APIView):
    """The documents of a room."""

    @extend_schema(
        operation_id="documents_list",
        responses={200: DocumentSerializer(many=True), **READ_ERRORS},
    )
    def get(self, request: Request, room_id: str) -> Response:
        """List the documents with their content."""
        found = Document.objects.filter(**DocumentName.of(request, "read", room_id=room_id))
        return Response(DocumentSerializer(found, many=True).data)


class DocumentDetail(APIView):
    """One document of a room."""

    @extend_schema(
        operation_id="documents_retrieve", responses={200: DocumentSerializer, **READ_ERRORS}
    )
    def get(self, request: Request, room_id: str, name: str) -> Response:
        """Read the document."""
        address = DocumentName.of(request, "read", room_id=room_id, name=name)
        document = get_object_or_404(Document, **address)
        return Response(DocumentSerializer(document).data)

    @extend_schema(
        operation_id="documents_write",
        request=DocumentSerializer,
        responses={200: DocumentSerializer, **WRITE_ERRORS},
    )
    def put(self, request: Request, room_id: str, name: str) -> Response:
        """Create or replace the document."""
        address = DocumentName.of(request, "submit", room_id=room_id, name=name)
        body = DocumentSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        document, _ = Document.objects.update_or_create(**address, defaults=body.validated_data)
        return Response(DocumentSerializer(document).data)


def first_page(request: HttpRequest) -> HttpResponse:
    """The first page: the backends in use, and links."""
    running = {
        "Database": connection.vendor,
        "Channel layer": settings.CHANNEL_LAYERS["default"]["BACKEND"].rpartition(".")[2],
        "Cache": settings.CACHES["default"]["BACKEND"].rpartition(".")[2],
    }
    return render(request, "first_page.html", {"running": running, "demo_room": DEMO_ROOM})


@login_required
def room_page(request: HttpRequest, room_id: str) -> HttpResponse:
    """A room's documents and its latest tasks."""
    if error := room_error(room_id):
        raise Http404(f"The room id {error}.")
    if not Caller(request).may("read", room_id):
        raise Http404("There is no such room.")
    return render(
        request,
        "room.html",
        {
            "room_id": room_id,
            "documents": Document.objects.filter(room_id=room_id),
            "tasks": Task.objects.filter(room_id=room_id).select_related("job")[:20],
        },
    )
