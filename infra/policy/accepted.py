#!/usr/bin/env python3
"""Holds what Checkov found against what is accepted, in both directions.

accepted.py FOUND.json ACCEPTED.toml    FOUND.json is the output of `checkov --output json`
"""

import fnmatch
import json
import sys
import tomllib


def unmatched(found, accepted):
    """What is found but not accepted, and what is accepted but not found. `found`: pairs of check and resource."""
    entries = [(check, pattern) for check, entry in accepted.items() for pattern in entry["resources"]]

    def fits(finding, entry):
        # A pattern's only sign is the star: brackets stand for themselves.
        return finding[0] == entry[0] and fnmatch.fnmatchcase(finding[1], entry[1].replace("[", "[[]"))

    for finding in found:
        if not any(fits(finding, entry) for entry in entries):
            yield f"{finding[0]} found in {finding[1]}: mend it, or accept it with a reason"
    for entry in entries:
        if not any(fits(finding, entry) for finding in found):
            yield f"{entry[0]} accepted in {entry[1]}, where it is not found: remove it"


def self_test():
    accepted = {"A": {"resources": ['x.y["z"]', "b.*"]}}
    all_found = [("A", 'x.y["z"]'), ("A", "b.1"), ("A", "b.2")]
    assert list(unmatched(all_found, accepted)) == []
    assert len(list(unmatched([*all_found, ("B", "b.1")], accepted))) == 1, "another check"
    assert len(list(unmatched([*all_found, ("A", "x.yz")], accepted))) == 1, "another resource"
    assert len(list(unmatched(all_found[1:], accepted))) == 1, "nothing to accept"


def main(found_path, accepted_path):
    self_test()
    found = json.load(open(found_path))
    accepted = tomllib.load(open(accepted_path, "rb"))
    # Of a file that it does not take for a plan Checkov says only zeros, in another form.
    passed = found.get("summary", {}).get("passed", 0)
    failed = found.get("results", {}).get("failed_checks", [])
    pairs = [(check["check_id"], check["resource"]) for check in failed]
    wrong = list(unmatched(pairs, accepted))
    wrong += [f"{check} is accepted without a reason" for check, entry in accepted.items() if not entry.get("reason")]
    wrong += [] if passed else ["Checkov looked at nothing"]
    print("\n".join(wrong) or f"Checkov: {passed} checks passed, {len(pairs)} findings accepted with {len(accepted)} reasons")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main(*sys.argv[1:])
