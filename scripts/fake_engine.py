"""A Docker Engine that runs nothing: it answers what Docker Compose asks, and keeps what it was told to create.

Every image is there, every container starts, is healthy at once, and has ended well where `completed` names its service.
"""

import hashlib
import json
import re
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

PREFIX = "com.docker.compose."


def identity(text):
    return hashlib.sha256(text.encode()).hexdigest()


class State:
    """What was created, in order, and how to answer."""

    def __init__(self, api_version, networks=(), volumes=(), completed=()):
        self.api_version = api_version
        self.completed = set(completed)
        self.lock = threading.Lock()
        self.containers = {}
        self.networks = {name: {"Name": name, "Id": identity(name), "Labels": {}} for name in networks}
        self.volumes = {name: {"Name": name, "Labels": {}} for name in volumes}
        # What was sent: containers as (name, platform, body), connects as (container name, network, endpoint).
        self.sent = {"containers": [], "networks": [], "volumes": [], "connects": []}
        self.unknown = []

    def container(self, key):
        for container in self.containers.values():
            if container["Id"].startswith(key) or container["Name"] == "/" + key:
                return container
        return None

    def network(self, key):
        return next((n for n in self.networks.values() if key in (n["Name"], n["Id"])), None)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, *_):
        pass

    def address_string(self):
        return "unix"

    def answer(self, status, body=None):
        payload = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Api-Version", self.state.api_version)
        self.send_header("Docker-Experimental", "false")
        self.send_header("Ostype", "linux")
        self.send_header("Server", "Docker")
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if payload and self.command != "HEAD":
            self.wfile.write(payload)

    def missing(self, what):
        self.answer(404, {"message": f"No such {what}"})

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            return json.loads(data) if data else None
        except ValueError:
            return None

    def dispatch(self):
        url = urlsplit(self.path)
        path = re.sub(r"^/v1\.\d+", "", unquote(url.path))
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        body = self.body()
        with self.state.lock:
            for method, pattern, function in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method.split("|"):
                    function(self, *match.groups(), query=query, body=body)
                    return
            self.state.unknown.append(f"{self.command} {path}")
        self.missing("page")

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = dispatch

    def ping(self, **_):
        self.answer(200)

    def version(self, **_):
        minimum = "1.12" if self.state.api_version < "1.44" else "1.24"
        self.answer(200, {"Version": "0.0.0", "ApiVersion": self.state.api_version, "MinAPIVersion": minimum,
                          "Os": "linux", "Arch": "amd64"})

    def info(self, **_):
        self.answer(200, {"ID": "fake", "OSType": "linux", "Architecture": "x86_64", "ServerVersion": "0.0.0",
                          "Driver": "overlay2", "SecurityOptions": [], "Swarm": {"LocalNodeState": "inactive"},
                          "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "none"]}})

    def image(self, reference, **_):
        self.answer(200, {"Id": "sha256:" + identity(reference), "RepoTags": [reference], "RepoDigests": [],
                          "Os": "linux", "Architecture": "amd64", "Created": "2024-01-01T00:00:00Z",
                          "Config": {"Env": [], "Labels": {}, "Volumes": {}}, "RootFS": {"Type": "layers"}})

    def images(self, **_):
        self.answer(200, [])

    def network(self, key, **_):
        found = self.state.network(key)
        self.answer(200, found) if found else self.missing(f"network: {key}")

    def network_list(self, query, **_):
        filters = json.loads(query.get("filters", "{}"))
        labels, names = words(filters, "label"), words(filters, "name")
        self.answer(200, [n for n in self.state.networks.values()
                          if labelled(n["Labels"], labels) and (not names or any(x in n["Name"] for x in names))])

    def network_create(self, body, **_):
        self.state.sent["networks"].append(body)
        network = {**body, "Id": identity("network " + body["Name"]), "Labels": body.get("Labels") or {}, "Containers": {}}
        self.state.networks[body["Name"]] = network
        self.answer(201, {"Id": network["Id"], "Warning": ""})

    def network_connect(self, key, body, **_):
        network, container = self.state.network(key), self.state.container(body["Container"])
        if not network or not container:
            return self.missing("network or container")
        self.state.sent["connects"].append((container["Name"][1:], network["Name"], body.get("EndpointConfig")))
        container["NetworkSettings"]["Networks"][network["Name"]] = {"NetworkID": network["Id"]}
        return self.answer(200)

    def volume(self, name, **_):
        found = self.state.volumes.get(name)
        self.answer(200, found) if found else self.missing(f"volume: {name}")

    def volume_list(self, query, **_):
        labels = words(json.loads(query.get("filters", "{}")), "label")
        self.answer(200, {"Volumes": [v for v in self.state.volumes.values() if labelled(v["Labels"], labels)]})

    def volume_create(self, body, **_):
        self.state.sent["volumes"].append(body)
        self.state.volumes[body["Name"]] = {"Driver": "local", "Scope": "local", **body, "Labels": body.get("Labels") or {}}
        self.answer(201, self.state.volumes[body["Name"]])

    def container_list(self, query, **_):
        labels = words(json.loads(query.get("filters", "{}")), "label")
        self.answer(200, [
            {"Id": c["Id"], "Names": [c["Name"]], "Image": c["Config"]["Image"], "ImageID": c["Image"],
             "Labels": c["Config"]["Labels"], "State": c["State"]["Status"], "Status": c["State"]["Status"], "Created": 1,
             "NetworkSettings": c["NetworkSettings"], "Mounts": [], "HostConfig": {"NetworkMode": "default"}}
            for c in self.state.containers.values()
            if labelled(c["Config"]["Labels"], labels) and ("all" in query or c["State"]["Running"])])

    def container_create(self, query, body, **_):
        name = query.get("name") or identity(str(len(self.state.containers)))[:12]
        body["Labels"] = body.get("Labels") or {}
        self.state.sent["containers"].append((name, query.get("platform", ""), body))
        networks = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
        attached = {n: {**(e or {}), "NetworkID": (self.state.network(n) or {}).get("Id", "")} for n, e in networks.items()}
        container = {
            "Id": identity("container " + name), "Name": "/" + name, "Created": "2024-01-01T00:00:00Z",
            "Image": "sha256:" + identity(body["Image"]), "HostConfig": body.get("HostConfig") or {}, "Mounts": [],
            "Config": body, "NetworkSettings": {"Networks": attached},
            "State": {"Status": "created", "Running": False, "ExitCode": 0},
        }
        self.state.containers[name] = container
        self.answer(201, {"Id": container["Id"], "Warnings": []})

    def container(self, key, **_):
        found = self.state.container(key)
        self.answer(200, found) if found else self.missing(f"container: {key}")

    def container_start(self, key, **_):
        found = self.state.container(key)
        if not found:
            return self.missing(f"container: {key}")
        ended = found["Config"]["Labels"].get(PREFIX + "service") in self.state.completed
        found["State"] = {"Status": "exited" if ended else "running", "Running": not ended, "ExitCode": 0, "Pid": 1,
                          "StartedAt": "2024-01-01T00:00:00Z", "Health": {"Status": "healthy", "Log": []}}
        return self.answer(204)

    def container_remove(self, key, **_):
        found = self.state.container(key)
        if found:
            del self.state.containers[found["Name"][1:]]
        self.answer(204)

    def container_archive(self, _key, **_):
        self.answer(200)

    def accepted(self, *_groups, **_):
        self.answer(204)

    def events(self, **_):
        self.answer(200)


def words(filters, name):
    """Values of a filter, which comes as a list or as a set."""
    return list(filters.get(name, []))


def labelled(labels, wanted):
    return all((key in labels) if not equals else labels.get(key) == value
               for key, equals, value in (word.partition("=") for word in wanted))


ROUTES = [
    ("GET|HEAD", "/_ping", Handler.ping),
    ("GET", "/version", Handler.version),
    ("GET", "/info", Handler.info),
    ("GET", "/events", Handler.events),
    ("GET", "/images/json", Handler.images),
    ("GET", "/images/(.+)/json", Handler.image),
    ("GET", "/networks", Handler.network_list),
    ("POST", "/networks/create", Handler.network_create),
    ("POST", "/networks/([^/]+)/connect", Handler.network_connect),
    ("GET", "/networks/([^/]+)", Handler.network),
    ("GET", "/volumes", Handler.volume_list),
    ("POST", "/volumes/create", Handler.volume_create),
    ("GET", "/volumes/([^/]+)", Handler.volume),
    ("GET", "/containers/json", Handler.container_list),
    ("POST", "/containers/create", Handler.container_create),
    ("GET", "/containers/([^/]+)/json", Handler.container),
    ("POST", "/containers/([^/]+)/start", Handler.container_start),
    ("POST", "/containers/([^/]+)/(stop|kill|rename)", Handler.accepted),
    ("PUT", "/containers/([^/]+)/archive", Handler.container_archive),
    ("DELETE", "/containers/([^/]+)", Handler.container_remove),
]


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        # A client that ends does not wait for its last answer.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class FakeEngine:
    """Serves a `State` on a Unix socket while its `with` block lasts."""

    def __init__(self, socket, state):
        handler = type("BoundHandler", (Handler,), {"state": state})
        Path(socket).unlink(missing_ok=True)
        self.server = Server(str(socket), handler)
        self.state = state

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self.state

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
