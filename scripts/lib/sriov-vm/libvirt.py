"""The guide's configuration for libvirt, by libvirt's own schemas, as virt-xml-validate looks at it."""

import os
import subprocess
from pathlib import Path

from lab import Result, Setup, Skipped
from packets import Wrong

DOMAIN = Path("docs/libvirt-vf.xml")
# A change that the schemas have to refuse, or they have looked at nothing.
RIGHT, WRONG = 'caching_mode="on"', 'caching_mode="perhaps"'


def libvirt_xml(lab):
    schema = lab.cache / "libvirt/usr/share/libvirt/schemas/domain.rng"
    if not schema.exists():
        raise Skipped("libvirt's schemas could not be downloaded")
    text = DOMAIN.read_text()
    broken = Path(lab.directory, "broken.xml")
    broken.write_text(text.replace(RIGHT, WRONG))
    if (refusal := refused(lab, schema, DOMAIN)) is not None:
        raise Wrong(refusal)
    if RIGHT not in text or refused(lab, schema, broken) is None:
        raise Wrong(f"{DOMAIN} is valid with {WRONG}, too")
    lab.say(f"{DOMAIN} is valid")
    return Result("-", "-", 0)


def refused(lab, schema, file):
    """What xmllint says against a file."""
    libraries = lab.cache / "xmllint/usr/lib/x86_64-linux-gnu"
    xmllint = lab.cache / "xmllint/usr/bin/xmllint"
    command = [xmllint, "--noout", "--nonet", "--relaxng", schema, file]
    environment = dict(os.environ, LD_LIBRARY_PATH=str(libraries))
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return run.stderr if run.returncode else None


SETUPS = [Setup("libvirt-xml", f"{DOMAIN} by libvirt's schemas", libvirt_xml, 20, quick=True)]
