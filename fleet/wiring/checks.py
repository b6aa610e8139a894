"""Everything that config files can get wrong, found before anything starts (GL-22)."""

from __future__ import annotations

from fleet.config import ServeSettings
from fleet.context import ContextConfig
from fleet.models import load_models, parse_prompts
from fleet.planning import CoachConfig
from fleet.wiring.blob_store import check_blob_keys
from fleet.wiring.change_requests import check_forge
from fleet.wiring.deploying import check_deployments
from fleet.wiring.endpoints import Endpoints, load_definitions
from fleet.wiring.notifications import check_notifications
from fleet.wiring.plugins import active_policy
from fleet.wiring.roster import roster
from fleet.wiring.tokenizers import check_tokenizers

__all__ = ["check_configuration"]


def check_configuration(endpoints: Endpoints) -> ServeSettings:
    """Every file that an actor or the front reads later is right; that of the front. No store is asked.

    Raises:
        ConfigError: names file, path and reason of the first file that is wrong, be it a tokenizer.
    """
    files = endpoints.files
    load_definitions(files)
    active_policy(files)
    files.load("coach.yaml", CoachConfig)
    files.load("context.yaml", ContextConfig)
    load_models(files.document("models.yaml"))
    parse_prompts({n: files.read(n).decode() for n in files.names() if n.startswith("prompts/") and n.endswith(".md")})
    roster(endpoints)
    check_forge(endpoints)
    check_deployments(endpoints)
    check_blob_keys(endpoints)
    check_notifications(endpoints)
    check_tokenizers(endpoints)
    return files.load("serve.yaml", ServeSettings)
