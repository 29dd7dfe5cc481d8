"""A Kafka broker for tests: its published jars, fetched once by Maven into the user's cache, in KRaft mode on loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.servers import HOST, Account, ServerMissing, find_program, free_port, run_server, temporary_folder

KAFKA_VERSION: Final = "3.9.1"
ARTIFACT: Final = "kafka_2.13"
HEAP: Final = ("-Xms128m", "-Xmx384m")
POM: Final = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>plumbline</groupId><artifactId>kafka-jars</artifactId><version>1</version><dependencies><dependency>
<groupId>org.apache.kafka</groupId><artifactId>{ARTIFACT}</artifactId><version>{KAFKA_VERSION}</version>
</dependency></dependencies></project>"""


@contextlib.contextmanager
def run_kafka() -> Iterator[str]:
    """One broker that is its own controller, data in a temporary folder; gives its bootstrap address."""
    jars = fetch_jars()
    account = Account(os.getuid(), os.getgid())
    java = [find_program("java"), *HEAP, "-cp", f"{jars}/*"]
    with temporary_folder(account) as folder:

        def command(port: int) -> list[str]:
            properties = folder / f"server-{port}.properties"
            properties.write_text(describe(folder / f"data-{port}", port, free_port()))
            cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            words = [*java, "kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(properties)]
            made = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
            if made.returncode:
                raise ServerMissing(f"Kafka's storage cannot be formatted: {' '.join(made.stderr.split())}")
            return [*account.prefix, *java, "kafka.Kafka", str(properties)]

        with run_server(command, folder / "kafka.log", kafka_answers) as port:
            yield f"{HOST}:{port}"


def describe(data: Path, port: int, controller_port: int) -> str:
    """The broker's properties."""
    properties = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": data,
        "offsets.topic.replication.factor": 1,
        "auto.create.topics.enable": "false",
        "num.io.threads": 2,
        "num.network.threads": 2,
    }
    return "".join(f"{name}={value}\n" for name, value in properties.items())


def kafka_answers(port: int) -> bool:
    """Whether the broker takes part in its cluster."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)):
            return False
    try:
        client = AdminClient({"bootstrap.servers": f"{HOST}:{port}", "log_level": 0, "error_cb": lambda error: None})
        return bool(client.list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def fetch_jars() -> Path:
    """Folder with the broker's jars, fetched on first use.

    Raises:
        ServerMissing: Maven is not installed, or cannot fetch them.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "plumbline" / f"{ARTIFACT}-{KAFKA_VERSION}"
    if not cache.exists():
        partial = cache.with_name(f"{cache.name}.{os.getpid()}.partial")
        partial.mkdir(parents=True)
        (partial / "pom.xml").write_text(POM)
        words = [find_program("mvn"), "-q", "-B", "-f", str(partial / "pom.xml"), "dependency:copy-dependencies"]
        words += ["-DincludeScope=runtime", f"-DoutputDirectory={partial}"]
        fetched = subprocess.run(words, capture_output=True, text=True, check=False)
        if fetched.returncode:
            raise ServerMissing(f"Kafka's jars cannot be fetched: {' '.join(fetched.stdout.split())[:300]}")
        partial.rename(cache)
    return cache
