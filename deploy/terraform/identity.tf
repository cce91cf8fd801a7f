# One account for each part, and to each what it cannot do without. No key is made: pods get tokens by Workload
# Identity. Workers outside of the cluster need no account at all; the gateway signs their uploads.

resource "google_service_account" "gateway" {
  account_id   = "itemforge-gateway"
  display_name = "ItemForge gateway"
}

resource "google_service_account" "worker" {
  account_id   = "itemforge-worker"
  display_name = "ItemForge worker"
}

resource "google_service_account" "nodes" {
  account_id   = "itemforge-nodes"
  display_name = "Nodes of ItemForge's cluster"
}

# Pictures and styles: create, read, delete.
resource "google_storage_bucket_iam_member" "gateway_items" {
  bucket = google_storage_bucket.items.name
  role   = "roles/storage.objectUser"
  member = google_service_account.gateway.member
}

resource "google_storage_bucket_iam_member" "models" {
  for_each = {
    gateway = google_service_account.gateway.member
    worker  = google_service_account.worker.member
  }

  bucket = google_storage_bucket.models.name
  role   = "roles/storage.objectViewer"
  member = each.value
}

# The gateway signs addresses for uploads and downloads as itself.
resource "google_service_account_iam_member" "gateway_signs" {
  service_account_id = google_service_account.gateway.name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = google_service_account.gateway.member
}

resource "google_project_iam_member" "gateway_database" {
  project = var.project
  role    = "roles/cloudsql.client"
  member  = google_service_account.gateway.member
}

# Which accounts of the cluster are these.
resource "google_service_account_iam_member" "workload_identity" {
  for_each = {
    itemforge-gateway = google_service_account.gateway.name
    itemforge-worker  = google_service_account.worker.name
  }

  service_account_id = each.value
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[itemforge/${each.key}]"

  depends_on = [google_container_cluster.main]
}

# Nodes write logs and metrics, and pull images; nothing else.
resource "google_project_iam_member" "nodes" {
  for_each = toset(["roles/logging.logWriter", "roles/monitoring.metricWriter", "roles/monitoring.viewer", "roles/stackdriver.resourceMetadata.writer"])

  project = var.project
  role    = each.key
  member  = google_service_account.nodes.member
}

resource "google_artifact_registry_repository_iam_member" "nodes_pull" {
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.nodes.member
}
