from __future__ import annotations

import pytest

from gptoss_bento.doctor.finding import Finding, error, exit_code, note, ok, secrets, warning, without
from gptoss_bento.errors import AddressInUseError, ArtifactError, ConfigurationError, EngineStartError

FINE = [ok("a", "fine"), note("b", "worth knowing")]


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([], 0),
        (FINE, 0),
        ([*FINE, warning("c", "slow", "do this")], 1),
        ([*FINE, error("c", "wrong", "do this")], 78),
        ([error("c", "gone", "do this", ArtifactError)], 69),
        ([error("c", "taken", "do this", AddressInUseError)], 71),
        ([error("c", "refused", "do this", EngineStartError)], 70),
        ([warning("c", "slow", "do this"), error("d", "gone", "do this", ArtifactError)], 69),
    ],
)
def test_exit_code_is_that_of_the_worst(findings: list[Finding], code: int) -> None:
    assert exit_code(findings) == code


def test_exit_code_is_that_of_the_first_error() -> None:
    findings = [error("a", "gone", "", ArtifactError), error("b", "wrong", "", ConfigurationError)]

    assert exit_code(findings) == 69
    assert exit_code(findings[::-1]) == 78


def test_variables_with_secret_names_are_secret() -> None:
    variables = {
        "HF_TOKEN": "hf_abcdefgh",
        "API_KEY": "first-key-1,second-key-2",
        "AWS_SECRET_ACCESS_KEY": "aws-secret-1",
        "MODEL_NAME": "openai/gpt-oss-20b",
        "DB_PASSWORD": "short",
    }

    assert secrets(variables) == {
        "hf_abcdefgh",
        "first-key-1,second-key-2",
        "first-key-1",
        "second-key-2",
        "aws-secret-1",
    }


def test_secrets_are_blacked_out_of_every_text() -> None:
    finding = warning("a", "Bearer hf_abcdefgh refused", "unset hf_abcdefgh")

    clean = without({"hf_abcdefgh", "hf_abcdefgh,more"}, finding)

    assert (clean.found, clean.remedy) == ("Bearer *** refused", "unset ***")
