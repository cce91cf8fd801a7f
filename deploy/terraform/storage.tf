# Pictures and published styles.
resource "google_storage_bucket" "items" {
  name                        = "${var.project}-itemforge"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  dynamic "lifecycle_rule" {
    for_each = var.keep_pictures_days > 0 ? [var.keep_pictures_days] : []

    content {
      condition {
        age            = lifecycle_rule.value
        matches_prefix = ["generated/"]
      }

      action {
        type = "Delete"
      }
    }
  }

  # What somebody deleted by mistake can be had back for a week.
  soft_delete_policy {
    retention_duration_seconds = 604800
  }
}

# Base models and packs, as `itemforge models pull` leaves them at home; workers read them, nobody writes.
resource "google_storage_bucket" "models" {
  name                        = "${var.project}-itemforge-models"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = true
  }
}

resource "google_artifact_registry_repository" "images" {
  repository_id = "itemforge"
  location      = var.region
  format        = "DOCKER"

  docker_config {
    immutable_tags = true
  }

  depends_on = [google_project_service.used]
}
