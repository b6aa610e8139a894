"""Everything that config files can get wrong, found before anything starts (GL-22)."""

from __future__ import annotations

from fleet.config.settings import ServeSettings
from fleet.kernel.documents import WrongKey, wrong_file
from fleet.models.profiles import load_models
from fleet.models.prompts.prompt import parse_prompts
from fleet.planning.coach_config import CoachConfig
from fleet.wiring.change_requests import check_forge
from fleet.wiring.deployments import check_deployments
from fleet.wiring.endpoints import Endpoints, load_definitions, load_principals
from fleet.wiring.models.plugins import check_engines
from fleet.wiring.models.tokenizers import check_tokenizers
from fleet.wiring.notifications import check_notifications
from fleet.wiring.roster import roster
from fleet.wiring.sandbox.backend import check_backend
from fleet.wiring.sandbox.plugins import active_policy, active_roles
from fleet.wiring.stores.blobs import check_blob_keys
from fleet.wiring.stores.secrets import check_providers


def check_configuration(endpoints: Endpoints) -> ServeSettings:
    """Every file that an actor or the front reads later is right; that of the front. No store is asked.

    Raises:
        ConfigError: names file, line, path and reason of the first file that is wrong, be it a tokenizer.
    """
    files = endpoints.files
    load_definitions(files)
    active_policy(files)
    files.load("coach.yaml", CoachConfig)
    check_engines(load_models(files.document("models.yaml")), files)
    check_backend(endpoints.sandbox_backend, files)
    parse_prompts({n: files.read(n).decode() for n in files.names() if n.startswith("prompts/") and n.endswith(".md")})
    _check_pools(endpoints)
    roster(endpoints)
    check_forge(endpoints)
    check_deployments(endpoints)
    check_providers(endpoints)
    check_blob_keys(endpoints)
    check_notifications(endpoints)
    check_tokenizers(endpoints)
    load_principals(endpoints.principals_file)
    return files.load("serve.yaml", ServeSettings)


def _check_pools(endpoints: Endpoints) -> None:
    files, known = endpoints.files, active_roles(endpoints.files).roles
    if unknown := [role for role in endpoints.pools if role not in known]:
        problems = [WrongKey(f"pools.{role}", f"roles.yaml has no role {role!r}") for role in unknown]
        raise wrong_file(str(files.path("fleet.yaml")), problems, files.document("fleet.yaml"))
