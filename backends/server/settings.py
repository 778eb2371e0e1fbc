"""Settings of the server; config.yaml says what each is for."""

from typing import Annotated

from pydantic import Field

from backends.schema import Positive, Strict

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]

Alias = Annotated[str, Field(min_length=1, max_length=256)]


class ServerSettings(Strict):
    """The server of the wire format."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    data_dir: Annotated[str, Field(min_length=1)] = "server-data"
    organization: Name = "local"
    aliases: dict[Alias, Alias] = Field(default_factory=dict[str, str])
    allow_hub: bool = False
    max_adapters: Positive = 8
    max_unfinished_jobs: Positive = 100
    max_unfinished_batches: Positive = 20
    max_files: Positive = 1000
    max_file_bytes: Positive = 512_000_000
    max_body_bytes: Positive = 4_000_000
    batch_concurrency: Positive = 32
