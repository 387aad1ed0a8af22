#!/usr/bin/env python3
"""What must hold of a plan, where Checkov does not look: it knows neither Cloud Run v2 nor Eventarc.

    rules.py PLAN.json …    PLAN.json is the output of `terraform show -json PLAN`

Each rule comes with planted violations. They are put into the first plan before anything else is said: a rule that does not
catch them is worth nothing, and that fails too.
"""

import copy
import json
import re
import sys

RULES = []


def rule(says, *planted):
    """A rule takes a plan's resources and gives what breaks it. A planted violation takes them and breaks it."""

    def register(check):
        RULES.append((says, check, planted))
        return check

    return register


def of(resources, *types):
    return [r for r in resources if r["type"] in types]


def first(block):
    """The first of a block's repetitions; nothing, if there is none."""
    return (block or [{}])[0]


def put(kind, **values):
    return lambda resources: resources.append({"address": f"{kind}.planted", "type": kind, "values": values})


def change(kind, *path):
    """Sets what the path, without its last part, leads to in the first resource of the kind."""

    def plant(resources):
        *path_to, last, value = path
        place = of(resources, kind)[0]["values"]
        for step in path_to:
            place = place[step]
        place[last] = value

    return plant


SERVICE = "google_cloud_run_v2_service"
IN_SERVICE = ("template", 0)
IN_CONTAINER = (*IN_SERVICE, "containers", 0)


def members(values):
    return [values.get("member"), *(values.get("members") or [])]


@rule(
    "nobody comes in without an account",
    put("google_cloud_run_v2_service_iam_member", member="allUsers", role="roles/run.invoker"),
    put("google_storage_bucket_iam_binding", members=["allAuthenticatedUsers"], role="roles/storage.objectViewer"),
    change(SERVICE, "invoker_iam_disabled", True),
)
def nobody_public(resources):
    for r in resources:
        if {"allUsers", "allAuthenticatedUsers"} & set(members(r["values"])) or r["values"].get("invoker_iam_disabled"):
            yield r


@rule(
    "services take requests from inside only",
    change(SERVICE, "ingress", "INGRESS_TRAFFIC_ALL"),
    change(SERVICE, "ingress", None),
)
def internal_ingress(resources):
    return [s for s in of(resources, SERVICE) if s["values"]["ingress"] != "INGRESS_TRAFFIC_INTERNAL_ONLY"]


KEYS = {"google_service_account_key", "google_storage_hmac_key", "google_apikeys_key", "tls_private_key", "random_password"}


@rule("no key is made", put("google_service_account_key"), put("google_storage_hmac_key"))
def no_keys(resources):
    return of(resources, *KEYS)


@rule(
    "no environment holds a secret",
    change(SERVICE, *IN_CONTAINER, "env", [{"name": "GEMINI_API_KEY", "value": "x"}]),
)
def no_secrets(resources):
    for service in of(resources, SERVICE):
        for container in first(service["values"]["template"]).get("containers") or []:
            names = [env["name"] for env in container.get("env") or [] if env.get("value")]
            if any(re.search(r"KEY|SECRET|TOKEN|PASSWORD", name) for name in names):
                yield service


@rule(
    "no basic roles, no administrators",
    put("google_project_iam_member", role="roles/editor", member="serviceAccount:x"),
    put("google_storage_bucket_iam_member", role="roles/storage.admin", member="serviceAccount:x"),
    put("google_project_iam_member", role="roles/iam.serviceAccountTokenCreator", member="serviceAccount:x"),
)
def no_wide_roles(resources):
    wide = re.compile(r"^roles/(owner|editor|viewer)$|[aA]dmin$|^roles/iam\.")
    return [r for r in resources if wide.search(r["values"].get("role") or "")]


# What exists for projects alone. A role of our own is fine: it is as narrow as it can be.
ON_PROJECT = {
    "roles/eventarc.serviceAgent",
    "roles/eventarc.eventReceiver",
    "roles/pubsub.publisher",  # Cloud Storage's agent: Eventarc makes the topics later
    "roles/bigquery.jobUser",
    "roles/bigquery.readSessionUser",
    "roles/cloudscheduler.viewer",
    "roles/logging.logWriter",
    "roles/monitoring.viewer",
    "roles/logging.viewer",
}


@rule(
    "the project gives only what no single thing can give",
    put("google_project_iam_member", role="roles/storage.objectViewer", member="serviceAccount:x"),
    put("google_project_iam_member", role="roles/spanner.databaseUser", member="serviceAccount:x"),
)
def little_on_project(resources):
    for r in of(resources, "google_project_iam_member"):
        # A role of our own is not known before it is made: its name ends by chance.
        role = r["values"].get("role", "projects/?/roles/?")
        if role not in ON_PROJECT and not re.match(r"projects/[^/]+/roles/", role):
            yield r


@rule(
    "a role of our own holds no right to change rights or accounts, and no wildcard",
    put("google_project_iam_custom_role", permissions=["storage.buckets.setIamPolicy"]),
    put("google_project_iam_custom_role", permissions=["iam.serviceAccounts.actAs"]),
)
def narrow_custom_roles(resources):
    wide = re.compile(r"setIamPolicy|actAs|\*|\.update$|^iam\.|^resourcemanager\.")
    roles = of(resources, "google_project_iam_custom_role")
    return [r for r in roles if any(wide.search(p) for p in r["values"]["permissions"])]


@rule(
    "nobody else's rights are taken away: rights are added one by one",
    put("google_project_iam_policy"),
    put("google_storage_bucket_iam_binding", role="roles/storage.objectViewer", members=[]),
)
def additive(resources):
    return [r for r in resources if re.search(r"_iam_(policy|binding)$", r["type"])]


@rule(
    "each service works as an account of its own",
    change(SERVICE, *IN_SERVICE, "service_account", None),
    change(SERVICE, *IN_SERVICE, "service_account", "123-compute@developer.gserviceaccount.com"),
    lambda resources: [
        change(SERVICE, *IN_SERVICE, "service_account", "tasuki-x@p.iam.gserviceaccount.com")([s])
        for s in of(resources, SERVICE)
    ],
)
def own_accounts(resources):
    seen = set()
    for service in of(resources, SERVICE):
        account = first(service["values"]["template"]).get("service_account")
        if not account or not account.endswith(".iam.gserviceaccount.com") or account in seen:
            yield service
        seen.add(account)


@rule(
    "each service says how much it may use: CPU, memory, instances, requests at once, time",
    change(SERVICE, *IN_CONTAINER, "resources", 0, "limits", {"cpu": "1"}),
    change(SERVICE, *IN_SERVICE, "scaling", []),
    change(SERVICE, *IN_SERVICE, "timeout", None),
    change(SERVICE, *IN_SERVICE, "max_instance_request_concurrency", None),
)
def bounded(resources):
    for service in of(resources, SERVICE):
        template = first(service["values"]["template"])
        limits = first(first(template.get("containers")).get("resources")).get("limits") or {}
        bounds = [limits.get("cpu"), limits.get("memory"), first(template.get("scaling")).get("max_instance_count")]
        if not all([*bounds, template.get("timeout"), template.get("max_instance_request_concurrency")]):
            yield service


def generators(resources):
    return [s for s in of(resources, SERVICE) if s["values"]["name"].endswith("-generator")]


@rule(
    "the generator keeps its CPU between requests: paid calls go on when their request was cut",
    lambda resources: change(SERVICE, *IN_CONTAINER, "resources", 0, "cpu_idle", True)(generators(resources)),
)
def cpu_for_paid_calls(resources):
    for service in generators(resources):
        if first(first(first(service["values"]["template"])["containers"])["resources"]).get("cpu_idle") is not False:
            yield service


@rule(
    "each service is asked whether it is ready and whether it lives",
    change(SERVICE, *IN_CONTAINER, "startup_probe", []),
    change(SERVICE, *IN_CONTAINER, "liveness_probe", []),
)
def probed(resources):
    for service in of(resources, SERVICE):
        container = first(first(service["values"]["template"]).get("containers"))
        if not (container.get("startup_probe") and container.get("liveness_probe")):
            yield service


@rule(
    "an image is named by its digest or by the hash of its sources",
    change(SERVICE, *IN_CONTAINER, "image", "europe-docker.pkg.dev/p/r/tasuki:latest"),
    change(SERVICE, *IN_CONTAINER, "image", "tasuki"),
)
def pinned_images(resources):
    pinned = re.compile(r"@sha256:[0-9a-f]{64}$|:[0-9a-f]{20}$")
    for service in of(resources, SERVICE):
        image = first(first(service["values"]["template"]).get("containers")).get("image", "")
        if not pinned.search(image):
            yield service


@rule(
    "no bucket can be made public, and none keeps everything for ever",
    change("google_storage_bucket", "public_access_prevention", "inherited"),
    change("google_storage_bucket", "uniform_bucket_level_access", False),
    change("google_storage_bucket", "lifecycle_rule", []),
)
def closed_buckets(resources):
    for bucket in of(resources, "google_storage_bucket"):
        values = bucket["values"]
        closed = values.get("public_access_prevention") == "enforced" and values.get("uniform_bucket_level_access")
        if not closed or not values.get("lifecycle_rule"):
            yield bucket


@rule(
    "events are delivered again: no trigger turns it off",
    change("google_eventarc_trigger", "retry_policy", [{"max_attempts": 1}]),
)
def redelivered(resources):
    return [t for t in of(resources, "google_eventarc_trigger") if t["values"].get("retry_policy")]


@rule(
    "who calls by the clock says who it is",
    change("google_cloud_scheduler_job", "http_target", 0, "oidc_token", []),
)
def clocks_have_names(resources):
    for job in of(resources, "google_cloud_scheduler_job"):
        target = first(job["values"].get("http_target"))
        if not (target.get("oidc_token") or target.get("oauth_token")):
            yield job


def conditions(policy):
    for condition in policy["values"].get("conditions") or []:
        for kind, blocks in condition.items():
            if kind.startswith("condition_"):
                yield from blocks or []


@rule(
    "no alert looks at a log-based metric: its policy cannot be made in the same apply",
    put(
        "google_monitoring_alert_policy",
        conditions=[{"condition_threshold": [{"filter": 'metric.type="logging.googleapis.com/user/x"'}]}],
        documentation=[{"content": "x"}],
    ),
)
def alerts_on_what_is_there(resources):
    for policy in of(resources, "google_monitoring_alert_policy"):
        asked = " ".join(str(c.get("filter") or c.get("query")) for c in conditions(policy))
        if "logging.googleapis.com/user" in asked or "logging_googleapis_com:user" in asked:
            yield policy


@rule("each alert says what to do", change("google_monitoring_alert_policy", "documentation", []))
def alerts_say_what_to_do(resources):
    policies = of(resources, "google_monitoring_alert_policy")
    return [p for p in policies if not first(p["values"].get("documentation")).get("content")]


def resources_of(plan):
    def of_module(module):
        yield from module.get("resources", [])
        for child in module.get("child_modules", []):
            yield from of_module(child)

    return [r for r in of_module(plan["planned_values"]["root_module"]) if r.get("mode") != "data"]


def main(paths):
    plans = {path: resources_of(json.load(open(path))) for path in paths}
    if not plans:
        sys.exit(__doc__)
    wrong = []
    clean = next(iter(plans.values()))
    for says, check, planted in RULES:
        for number, plant in enumerate(planted, 1):
            bent = copy.deepcopy(clean)
            plant(bent)
            if not list(check(bent)):
                wrong.append(f"rule “{says}” does not catch its planted violation {number}")
    for path, resources in plans.items():
        wrong += [f"{path}: {r['address']}: {says}" for says, check, _ in RULES for r in check(resources)]
    print("\n".join(wrong) or f"{len(RULES)} rules hold; {sum(len(p) for *_, p in RULES)} planted violations were caught")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main(sys.argv[1:])
