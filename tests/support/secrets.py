"""Planted secrets of every class, in every form in which people and programs write them (CX-73)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

# Put together here, so that no scanner takes the samples themselves for secrets.
_BODY = "\n".join("MIIEpAIBAAKCAQEA7Qm0x3" + "kqhkiG9w0BAQEFAASC" + f"{n:04d}" + "Zk8bXw9TvLq3PsRdYe" for n in range(6))
_HEAD = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
_ALNUM = "a7Bq9Zk2Xw8Tv5Lm3Ps6Rd1Ye4Uc0Gf"


@dataclass(frozen=True, slots=True)
class PlantedSecret:
    """One secret: `text` as it stands somewhere, `secret` the part that may be seen nowhere."""

    kind: str
    text: str
    secret: str


def _same(kind: str, text: str) -> PlantedSecret:
    return PlantedSecret(kind, text, text)


def _pem(label: str) -> PlantedSecret:
    return _same("PRIVATE_KEY", f"-----BEGIN {label}-----\n{_BODY}\n-----END {label}-----")


SAMPLES: Mapping[str, PlantedSecret] = {
    "pem": _pem("PRIVATE " + "KEY"),
    "rsa": _pem("RSA PRIVATE " + "KEY"),
    "openssh": _pem("OPENSSH PRIVATE " + "KEY"),
    "pgp": _pem("PGP PRIVATE " + "KEY BLOCK"),
    "age": _same("PRIVATE_KEY", "AGE-SECRET-KEY-1" + "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"),
    "aws_id": _same("AWS", "AKIA" + "Q4ZT7LMNB2XCV5GH"),
    "github": _same("GITHUB", "ghp_" + _ALNUM + "a1B2c3"),
    "github_pat": _same("GITHUB", "github_pat_" + _ALNUM),
    "gitlab": _same("GITLAB", "glpat-" + _ALNUM[:20]),
    "slack": _same("SLACK", "xoxb-" + "123456789012-abcDEF456ghi"),
    "slack_app": _same("SLACK", "xapp-" + "1-A0B1C2D3E4-567890"),
    "openai": _same("PROVIDER", "sk-proj-" + _ALNUM),
    "anthropic": _same("PROVIDER", "sk-ant-" + "api03-" + _ALNUM),
    "hugging_face": _same("PROVIDER", "hf_" + _ALNUM + "xY"),
    "google": _same("PROVIDER", "AIza" + _ALNUM + "Qr7s"),
    "npm": _same("PROVIDER", "npm_" + _ALNUM + "Ab1C2"),
    "pypi": _same("PROVIDER", "pypi-" + _ALNUM + _ALNUM),
    "digital_ocean": _same("PROVIDER", "dop_v1_" + "0123456789abcdef" * 4),
    "sendgrid": _same("PROVIDER", "SG." + _ALNUM[:22] + "." + _ALNUM),
    "stripe": _same("PROVIDER", "sk_live_" + _ALNUM[:24]),
    "jwt": _same("JWT", f"{_HEAD}.eyJzdWIiOiIxMjM0NTY3ODkwIn0.{_ALNUM}"),
    "random": _same("HIGH_ENTROPY", "q7Zx2Kp9Lw4Tn8Vb3Yc6Mf1Rd5Hs0Gj" + "E"),
}

_PASSWORD = "tr0ub4dor-" + "s3cret"

NAMED: Mapping[str, PlantedSecret] = {
    "url": PlantedSecret("URL_CREDENTIALS", f"redis://admin:{_PASSWORD}@cache.internal:6379/0", _PASSWORD),
    "url_token": PlantedSecret("URL_CREDENTIALS", f"https://{_ALNUM}@git.internal/repo.git", _ALNUM),
    "query": PlantedSecret(
        "URL_CREDENTIALS", f"https://api.internal/v1?page=2&access_token={_PASSWORD}&x=1", _PASSWORD
    ),
    "aws_key": PlantedSecret("AWS", f"aws_secret_access_key = {_ALNUM}wJalrXUtn", f"{_ALNUM}wJalrXUtn"),
    "slack_hook": PlantedSecret("SLACK", "https://hooks.slack.com/services/T0A1/B2C3/" + _ALNUM[:24], _ALNUM[:24]),
    "header": PlantedSecret("AUTH_HEADER", f"Authorization: Bearer {_PASSWORD}", _PASSWORD),
    "basic": PlantedSecret("AUTH_HEADER", "Proxy-Authorization: Basic YWRtaW46aHVudGVyMg==", "YWRtaW46aHVudGVyMg=="),
    "cookie": PlantedSecret("AUTH_HEADER", "Set-Cookie: session=8f3a91c27d; Path=/", "8f3a91c27d"),
    "api_key": PlantedSecret("AUTH_HEADER", f"X-Api-Key: {_PASSWORD}", _PASSWORD),
    "env": PlantedSecret("KEY_VALUE", "export DB_PASSWORD=correct horse 9", "correct horse 9"),
    "yaml": PlantedSecret("KEY_VALUE", f"  password: {_PASSWORD}", _PASSWORD),
    "yaml_block": PlantedSecret(
        "KEY_VALUE", "client_secret: |\n  first part\n  second part\nuser: x", "first part\n  second"
    ),
    "json": PlantedSecret("KEY_VALUE", '{"password": "x y z"}', "x y z"),
    "escaped": PlantedSecret("KEY_VALUE", r'{"body": "{\"api_key\": \"one two\\\\ three\"}"}', "one two"),
    "python": PlantedSecret("KEY_VALUE", f"DB_PASSWORD = '{_PASSWORD}'", _PASSWORD),
    "ruby": PlantedSecret("KEY_VALUE", f":client_secret => '{_PASSWORD}'", _PASSWORD),
    "camel": PlantedSecret("KEY_VALUE", f'"clientSecret": "{_PASSWORD}"', _PASSWORD),
    "dsn": PlantedSecret("KEY_VALUE", f"host=db user=app password={_PASSWORD} dbname=x", _PASSWORD),
    "flag": PlantedSecret("KEY_VALUE", f"deploy --password {_PASSWORD} --force", _PASSWORD),
    "mysql": PlantedSecret("KEY_VALUE", f"mysql -u root -p{_PASSWORD} app", _PASSWORD),
    "weak": PlantedSecret("KEY_VALUE", "POSTGRES_PASSWORD=changeme", "changeme"),
    "xml": PlantedSecret("KEY_VALUE", f"<password>{_PASSWORD}</password>", _PASSWORD),
    "connection": PlantedSecret("KEY_VALUE", '"connection_string": "Server=db;Uid=1;Pwd=x9"', "Server=db;Uid=1;Pwd=x9"),
}
"""Secrets that are such by what stands around them; each is a whole line or more."""

FORMS: Mapping[str, Callable[[str], str]] = {
    "plain": lambda s: f"the value is {s} and no other",
    "line": lambda s: f"before\n{s}\nafter\n",
    "json": lambda s: json.dumps({"note": f"see {s}", "n": 1}),
    "json_twice": lambda s: json.dumps({"body": json.dumps({"note": s})}),
    "yaml": lambda s: f"settings:\n  note: '{s}'\n",
    "shell": lambda s: f'curl -s "{s}" | tee out.log',
    "log": lambda s: f"2026-01-02T03:04:05Z ERROR [worker-7] call failed: {s}",
    "diff": lambda s: "@@ -1,2 +1,3 @@\n context\n" + "\n".join(f"+{line}" for line in s.split("\n")) + "\n context",
    "url": lambda s: f"https://internal.example/{s}/path",
}
"""What may stand around a secret that is one by its own form."""


def planted() -> Iterator[tuple[str, PlantedSecret, str]]:
    """Name, secret and text for every secret in every form."""
    for name, sample in SAMPLES.items():
        for form, write in FORMS.items():
            if not (form == "url" and "\n" in sample.text):
                yield f"{name}-{form}", sample, write(sample.text)
    for name, sample in NAMED.items():
        yield name, sample, sample.text
        yield f"{name}-lines", sample, f"before\n{sample.text}\nafter\n"
