"""Keys on every link that leaves loopback: who is let in, who is refused, and what each is told."""
import json
import socket
import subprocess

from pair import (CONTROLLER, ENVIRONMENT, FIXTURES, GENERATOR, MEMSLOT, PERMISSION, Client, Daemon, PairCase,
                  wait_for)

TINY = FIXTURES / "llama_tiny_theta10000_hf"


def own_address():
    """An IPv4 address of this host that is not loopback, or None. Connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address = probe.getsockname()[0]
        except OSError:
            listed = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split()
            address = next((a for a in listed if a.count(".") == 3), "127.0.0.1")
    return None if address.startswith("127.") else address


class Curve(PairCase):
    def setUp(self):
        super().setUp()
        address = own_address()
        if address is None:
            self.skipTest("SKIPPED: this host has no address but loopback")
        with socket.socket() as free:
            free.bind((address, 0))
            self.endpoint = f"tcp://{address}:{free.getsockname()[1]}"

    def keygen(self, *names):
        """{name: (key file, public key)}; each file in a folder of this test."""
        folder = self.folder / self.id().rsplit(".", 1)[-1]
        folder.mkdir()
        files = {name: folder / f"{name}.key" for name in names}
        return {name: (path, self.client.json("keygen", path)["public"]) for name, path in files.items()}

    def guarded_controller(self, keys, **clients):
        config = self.write("guarded.toml", "clients = " + json.dumps(
            [f"{keys[name][1]} {rights}" for name, rights in clients.items()]))
        controller = PairCase.pair.controller(self.endpoint, "memory:", "--key-file", keys["server"][0],
                                              "--config", config)
        self.addCleanup(controller.stop)
        return controller

    def guarded_client(self, keys, name, server="server"):
        return Client(MEMSLOT, self.endpoint, "--key", str(keys[name][0]), "--server-key", keys[server][1],
                      "--timeout", "3")

    @staticmethod
    def generators(client):
        """Also where there is none, which is an error of status."""
        return json.loads(client("--json", "status").stdout)["generators"]

    def guarded_generator(self, keys, name):
        daemon = Daemon(GENERATOR, ["--model", TINY, "--threads", 1, "--endpoint", self.endpoint, "--keys", keys[name][0],
                                    "--server-key", f"{keys['server'][0]}.pub"],
                        self.folder / f"{self.id().rsplit('.', 1)[-1]}-{name}.log")
        self.addCleanup(daemon.stop)
        return daemon

    def test_a_pair_and_its_clients_meet_over_the_hosts_own_address(self):
        keys = self.keygen("server", "writer", "user")
        self.guarded_controller(keys, writer="generator *", user="client *")
        self.guarded_generator(keys, "writer")
        user = self.guarded_client(keys, "user")
        wait_for(lambda: self.generators(user))
        self.assertEqual(len(user.json("score", "--ids", 1, 2, 3)["tokens"]), 2)
        self.assertTrue(user.json("attest")["equal"])

    def test_whoever_is_not_on_the_list_is_refused_at_once_and_told_so(self):
        keys = self.keygen("server", "user", "stranger", "other-server")
        self.guarded_controller(keys, user="client *")
        self.refused(self.guarded_client(keys, "stranger")("bank", "ls"), PERMISSION, self.endpoint,
                     "expected", "key", "found it refused")
        self.refused(self.guarded_client(keys, "user", server="other-server")("bank", "ls"), PERMISSION,
                     self.endpoint, "expected a handshake", "found", "--server-key")
        generator = self.guarded_generator(keys, "stranger")
        wait_for(lambda: "not on the controller's list" in generator.text())
        user = self.guarded_client(keys, "user")
        self.assertEqual(user.json("bank", "ls")["memories"], [])
        self.assertEqual(self.generators(user), [])

    def test_a_client_key_is_no_generators_key(self):
        keys = self.keygen("server", "user")
        self.guarded_controller(keys, user="client *")
        generator = self.guarded_generator(keys, "user")
        wait_for(lambda: "expected a key that may act in this role" in generator.text())
        self.assertEqual(self.generators(self.guarded_client(keys, "user")), [])

    def test_no_link_beyond_loopback_starts_without_keys(self):
        for command in ([CONTROLLER, "--bank", "memory:", "--endpoint", self.endpoint],
                        [GENERATOR, "--model", TINY, "--endpoint", self.endpoint],
                        [MEMSLOT, "--endpoint", self.endpoint, "bank", "ls"]):
            result = subprocess.run([*map(str, command)], capture_output=True, text=True, env=ENVIRONMENT, timeout=60,
                                    check=False)
            self.refused(result, PERMISSION, self.endpoint, "expected CURVE keys", "found none")
