# The services' image: made here from this repository, or given.

locals {
  source_dir = abspath("${path.module}/..")
  # What goes into the programs, as .dockerignore lets it through; tests are listed in the workspace but not built.
  source_files = sort(setunion(
    ["Cargo.toml", "Cargo.lock", "prices.toml", "Dockerfile", ".dockerignore", ".gcloudignore", "tests/Cargo.toml", "infra/cloudbuild.yaml"],
    fileset(local.source_dir, "{functions,shared}/**/*.{rs,toml,sql}"),
    fileset(local.source_dir, "infra/schema/*.sql"),
  ))
  source_hash = substr(sha256(join("\n", [for name in local.source_files : "${name} ${filesha256("${local.source_dir}/${name}")}"])), 0, 20)
  built_image = "${google_artifact_registry_repository.images.location}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.images.repository_id}/${var.prefix}:${local.source_hash}"
  image       = var.image == null ? local.built_image : var.image
}

resource "google_artifact_registry_repository" "images" {
  repository_id = var.prefix
  description   = "Images of ${var.prefix}."
  location      = var.region
  format        = "DOCKER"
  kms_key_name  = var.kms_key
  # No immutable tags: a build repeated after a broken apply could not push its tag again.

  cleanup_policies {
    id     = "keep-recent"
    action = "KEEP"
    most_recent_versions {
      keep_count = 10
    }
  }
  cleanup_policies {
    id     = "delete-old"
    action = "DELETE"
    condition {
      tag_state  = "ANY"
      older_than = "2592000s" # 30 days
    }
  }

  depends_on = [time_sleep.kms]
}

# Where the sources lie for the build. Cloud Build's own bucket would stay behind after a destroy.
resource "google_storage_bucket" "build" {
  count = var.image == null ? 1 : 0

  name                        = "${var.project_id}-${var.prefix}-build"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true

  soft_delete_policy {
    retention_duration_seconds = 0
  }
  dynamic "encryption" {
    for_each = var.kms_key[*]
    content {
      default_kms_key_name = encryption.value
    }
  }
  lifecycle_rule {
    condition {
      age = 7
    }
    action {
      type = "Delete"
    }
  }

  depends_on = [time_sleep.kms]
}

resource "google_storage_bucket_iam_member" "build" {
  count = var.image == null ? 1 : 0

  bucket = google_storage_bucket.build[0].name
  role   = "roles/storage.objectViewer"
  member = local.member["build"]
}

resource "google_artifact_registry_repository_iam_member" "build" {
  count = var.image == null ? 1 : 0

  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.writer"
  member     = local.member["build"]
}

# The services need the image, so it is built in the same apply; the tag says from what, so nothing is built twice. gcloud works as
# whoever is logged in on this machine. `global`: only sources go there, and new projects may build in few regions ("Region
# restrictions for some projects" of Cloud Build's documentation).
resource "terraform_data" "image" {
  count = var.image == null ? 1 : 0

  triggers_replace = [local.built_image]

  provisioner "local-exec" {
    working_dir = local.source_dir
    # --suppress-logs: the log is in Cloud Logging only, and gcloud would fail when it cannot follow it.
    command = <<-SH
      gcloud builds submit . --quiet --suppress-logs --project="$PROJECT" --region=global --config=infra/cloudbuild.yaml \
        --substitutions="_IMAGE=$IMAGE" --service-account="$ACCOUNT" --gcs-source-staging-dir="$STAGING"
    SH
    environment = {
      PROJECT = var.project_id
      IMAGE   = local.built_image
      ACCOUNT = google_service_account.account["build"].id
      STAGING = "gs://${google_storage_bucket.build[0].name}/source"
    }
  }

  depends_on = [
    google_storage_bucket_iam_member.build,
    google_artifact_registry_repository_iam_member.build,
    time_sleep.iam,
  ]
}
