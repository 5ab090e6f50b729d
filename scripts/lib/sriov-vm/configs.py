"""Configurations for our programs."""

import json

from traffic import ISP, LAN, LAN_VLAN, POOL, WAN, WAN_VLAN


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
