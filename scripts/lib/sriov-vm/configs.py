"""Configurations for our programs."""

import json

from balancing import BACKENDS, OWN, SERVICES, TUNNELS
from traffic import HOST, ISP, LAN, LAN_VLAN, POOL, WAN, WAN_VLAN, WEB


def ports(inside, outside=None, descriptors=512, **more):
    lines = [f'inside = "{inside}"', f"descriptors = {descriptors}"]
    if outside:
        lines.append(f'outside = "{outside}"')
    return "[ports]\n" + "".join(f"{line}\n" for line in lines + [f"{name} = {value}" for name, value in more.items()])


def router(ports, functions, vlans=False, nat="sessions = 4096", timeouts=""):
    """`nat` and `timeouts` are settings of the NAT."""
    lan, wan = (f"vlan = {vlan}" if vlans else "" for vlan in (LAN_VLAN, WAN_VLAN))
    tables = {
        "monitor": "[monitor]\n",
        "rate-limit": "[rate-limit]\npackets_per_second = 1_000_000\n",
        "firewall": FIREWALL,
        "load-balancer": load_balancer(),
        "nat": f"[nat]\n{nat}\n[[nat.pools]]\naddresses = {json.dumps(POOL)}\n[nat.timeouts]\n{timeouts}\n",
    }
    return f"""
chain = {json.dumps(functions)}
forwarding = "router"
{ports}
[router.interfaces.lan]
side = "inside"
addresses = ["{LAN}/24"]
{lan}
[router.interfaces.wan]
side = "outside"
addresses = ["{WAN}/24"]
{wan}
[[router.routes]]
to = "0.0.0.0/0"
via = "{ISP}"
""" + "\n".join(tables[name] for name in functions)


FIREWALL = f"""
[firewall]
connections = 4096
connections_v6 = 64
[[firewall.rules]]
name = "out"
from = "inside"
action = "accept"
[[firewall.rules]]
name = "web"
from = "outside"
destination = "{HOST.format(10)}"
protocol = "tcp"
destination_ports = {WEB}
action = "accept"
"""


def load_balancer():
    """A service for each mode, with the same backends."""
    backends = "".join(f'[[load-balancer.services.backends]]\naddress = "{backend}"\n' for backend in BACKENDS)
    services = (
        f'[[load-balancer.services]]\nname = "{mode}"\naddress = "{address}"\nprotocol = "any"\nport = {WEB}\n'
        f'mode = "{mode}"\n{backends}'
        for mode, address in SERVICES.items()
    )
    return f"""
[load-balancer]
connections = 4096
connections_ipv6 = 64
table_size = 5003
tunnel_sources = ["{TUNNELS}"]
source_addresses = ["{OWN}"]
""" + "".join(services)
