"""Documents of a room over REST, and the pages of the site."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from example_project.rooms.models import Document
from zndraw_joblib import Task

DEMO_ROOM = "demo"


class DocumentSerializer(serializers.ModelSerializer):
    """A document; its room and name are in its address."""

    class Meta:
        model = Document
        fields = ("room_id", "name", "content", "updated_at")
        read_only_fields = ("room_id", "name", "updated_at")


class DocumentName(serializers.Serializer):
    """Where a document lies."""

    room_id = serializers.CharField(max_length=128)
    name = serializers.CharField(max_length=128)


class DocumentList(APIView):
    """The documents of a room."""

    @extend_schema(operation_id="documents_list", responses=DocumentSerializer(many=True))
    def get(self, request: Request, room_id: str) -> Response:
        """All of them with their content."""
        found = Document.objects.filter(room_id=room_id)
        return Response(DocumentSerializer(found, many=True).data)


class DocumentDetail(APIView):
    """One document of a room."""

    @extend_schema(operation_id="documents_retrieve", responses=DocumentSerializer)
    def get(self, request: Request, room_id: str, name: str) -> Response:
        """Read it."""
        document = get_object_or_404(Document, room_id=room_id, name=name)
        return Response(DocumentSerializer(document).data)

    @extend_schema(
        operation_id="documents_write", request=DocumentSerializer, responses=DocumentSerializer
    )
    def put(self, request: Request, room_id: str, name: str) -> Response:
        """Write it, new or over the old one."""
        address = DocumentName(data={"room_id": room_id, "name": name})
        address.is_valid(raise_exception=True)
        body = DocumentSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        document, _ = Document.objects.update_or_create(
            room_id=room_id, name=name, defaults=body.validated_data
        )
        return Response(DocumentSerializer(document).data)


def first_page(request: HttpRequest) -> HttpResponse:
    """What is running here, and where to go."""
    running = {
        "Database": connection.vendor,
        "Channel layer": settings.CHANNEL_LAYERS["default"]["BACKEND"].rpartition(".")[2],
        "Cache": settings.CACHES["default"]["BACKEND"].rpartition(".")[2],
    }
    return render(request, "first_page.html", {"running": running, "demo_room": DEMO_ROOM})


@login_required
def room_page(request: HttpRequest, room_id: str) -> HttpResponse:
    """A room's documents and its latest tasks."""
    return render(
        request,
        "room.html",
        {
            "room_id": room_id,
            "documents": Document.objects.filter(room_id=room_id),
            "tasks": Task.objects.filter(room_id=room_id).select_related("job")[:20],
        },
    )
