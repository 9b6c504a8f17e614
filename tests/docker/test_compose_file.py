"""What the team's MLflow promises on paper; ``test_compose_server.py`` starts it."""

import re

import pytest

from tests.docker.compose_file import COMPOSE, ROOT, VARIABLE, read_compose

EXAMPLE = ROOT / "docker" / "compose.env.example"
SECRETS = ("POSTGRES_PASSWORD", "S3_PASSWORD", "MLFLOW_ADMIN_PASSWORD", "MLFLOW_SECRET_KEY")


def filled() -> dict[str, str]:
    return {name: f"value-of-{name}" for name in SECRETS}


@pytest.mark.parametrize("name", SECRETS)
def test_it_does_not_start_without_a_secret(name: str) -> None:
    values = filled()
    del values[name]
    with pytest.raises(KeyError, match=rf"{name}: set it in docker/\.env"):
        read_compose(values)


def test_every_password_is_a_variable() -> None:
    for service in read_compose(filled())["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET", name):
                assert value.startswith("value-of-"), name


def test_the_example_names_every_variable_without_a_secret_in_it() -> None:
    used = {found["name"] for found in VARIABLE.finditer(COMPOSE.read_text())}
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    given = dict(line.split("=", 1) for line in lines)
    assert used - set(given) == {"S3_ENDPOINT"}
    assert all(given[name] == "" for name in SECRETS)


def test_services_are_pinned_watched_and_start_in_order() -> None:
    services = read_compose(filled())["services"]
    assert all(re.search(r":[^:]*\d", service["image"]) for service in services.values())
    assert all("healthcheck" in services[name] for name in ("postgres", "s3", "mlflow"))
    assert services["bucket"]["depends_on"]["s3"]["condition"] == "service_healthy"
    assert services["mlflow"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert services["mlflow"]["depends_on"]["bucket"]["condition"] == "service_completed_successfully"


def test_the_server_runs_unprivileged_and_read_only() -> None:
    service = read_compose(filled())["services"]["mlflow"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "USER 1000:1000" in (ROOT / "docker" / "mlflow" / "Dockerfile").read_text()


def test_the_image_has_the_client_s_version() -> None:
    pinned = re.search(r"^mlflow==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert read_compose(filled())["services"]["mlflow"]["image"] == f"pointloom-mlflow:{pinned[1]}"
