"""The studio as a whole: what the app factory of the gateway is given."""

from fastapi import FastAPI, Response
from starlette.routing import Mount
from starlette.types import Scope

from itemforge.gateway.problems import Refusal
from itemforge.studio import assets, batches, entering, fleet, gallery, items, make, routing, styles


class Site:
    """What the gateway asks of the pages."""

    def refused(self, scope: Scope, refusal: Refusal) -> Response:
        """The answer to a browser that may not come here; `scope` has its app already."""
        return routing.refused(scope, refusal)


def install(app: FastAPI) -> Site:
    """Add the pages to a gateway."""
    app.routes.append(Mount(assets.PREFIX.rstrip("/"), assets.serve))
    for module in (entering, make, batches, gallery, items, fleet, styles):
        app.include_router(module.routes)
    app.include_router(gallery.acts)
    return Site()
