"""The browsable documentation: Swagger UI, from files that are installed with the platform."""

from __future__ import annotations

import json

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

# Everything comes from this server, no script is written into the page, and no other site may frame it: with a key
# that somebody gave the page, it could be made to act for them.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
# Addresses are relative, so that the page works under any prefix.
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ML Core API</title>
<link rel="icon" href="docs/assets/favicon.png">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_OPTIONS = {
    "url": "openapi.json",
    "dom_id": "#swagger-ui",
    "deepLinking": True,
    "displayRequestDuration": True,
    "docExpansion": "none",
    "filter": True,
    "tryItOutEnabled": True,
    "validatorUrl": None,
}


def add_docs(app: FastAPI) -> None:
    """Serve the documentation of an application at ``/docs``."""
    script = f"SwaggerUIBundle({json.dumps(_OPTIONS)});\n"

    @app.get("/docs", include_in_schema=False)
    async def page() -> Response:
        return Response(_PAGE, media_type="text/html", headers=_HEADERS)

    @app.get("/docs/start.js", include_in_schema=False)
    async def start() -> Response:
        return Response(script, media_type="text/javascript", headers=_HEADERS)

    # Only the package's files: importing it would change FastAPI's own page.
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]))
