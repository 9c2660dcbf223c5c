"""What a worker's process is not left with."""

import os

import pytest

from cluster import environment
from cluster.environment import is_credential, settle_in, with_credentials

SECRETS = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AZURE_CLIENT_SECRET", "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS", "GOOGLE_APPLICATION_CREDENTIALS",
    "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "WANDB_API_KEY", "openai_api_key", "PGPASSWORD",
    "GITHUB_PAT", "SSH_AUTH_SOCK", "KUBECONFIG", "RAY_AUTH_TOKEN",
)  # fmt: skip
HARMLESS = (
    "TOKENIZERS_PARALLELISM", "HF_HOME", "HF_HUB_OFFLINE", "PATH", "CUDA_VISIBLE_DEVICES", "NCCL_SOCKET_IFNAME",
    "RAY_AUTH_TOKEN_PATH", "RAY_TLS_SERVER_KEY", "RAY_AUTH_MODE", "AWS_REGION", "KEYBOARD",
)  # fmt: skip


def test_credentials_are_known_by_their_names_and_by_passwords_in_addresses():
    assert [name for name in SECRETS if not is_credential(name, "x")] == []
    assert [name for name in HARMLESS if is_credential(name, "x")] == []
    assert is_credential("https_proxy", "http://me:hunter2@proxy:3128")
    assert not is_credential("https_proxy", "http://proxy:3128/a@b")


def test_a_worker_forgets_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "collect_garbage_rarely", lambda: None)
    monkeypatch.setattr(os, "environ", {"HF_TOKEN": "x", "HOME": "/root"})
    monkeypatch.setattr(environment, "_settled", [])
    monkeypatch.setattr(environment, "_taken", {})
    assert not environment.is_worker()
    settle_in({"HF_HUB_OFFLINE": "1"})
    assert environment.is_worker()
    assert os.environ == {"HOME": "/root", "HF_HUB_OFFLINE": "1"}
    with with_credentials():
        assert os.environ["HF_TOKEN"] == "x"
    assert os.environ == {"HOME": "/root", "HF_HUB_OFFLINE": "1"}
