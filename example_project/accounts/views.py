"""The page that signs in, and an endpoint that returns a token for name and password."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.views import LoginView
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.authtoken.models import Token
from rest_framework.authtoken.serializers import AuthTokenSerializer
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from example_project.errors import errors


class SignIn(LoginView):
    """``/sign-in/``; somebody who is signed in already goes on to the first page."""

    template_name = "sign_in.html"
    redirect_authenticated_user = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Tell the template whether the terminal of ``make demo`` shows name and password."""
        return super().get_context_data(is_demo=bool(settings.DEMO_KEY), **kwargs)


class TokenView(APIView):
    """``POST /v1/auth/token``."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    throttle_scope = "token"

    @extend_schema(
        operation_id="token",
        auth=[],
        request=AuthTokenSerializer,
        responses={
            200: inline_serializer("Token", {"token": serializers.CharField()}),
            **errors(400, 405, 413, 415, 429),
        },
    )
    def post(self, request: Request) -> Response:
        """Return the user's token, which the first call makes."""
        body = AuthTokenSerializer(data=request.data, context={"request": request})
        body.is_valid(raise_exception=True)
        token, _ = Token.objects.get_or_create(user=body.validated_data["user"])
        return Response({"token": token.key})
