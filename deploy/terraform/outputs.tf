output "address" {
  description = "Address that the name of the gateway must lead to"
  value       = google_compute_global_address.gateway.address
}

output "bucket" {
  description = "GCS_BUCKET_NAME"
  value       = google_storage_bucket.items.name
}

output "database" {
  description = "What the Cloud SQL Auth Proxy is told"
  value       = google_sql_database_instance.main.connection_name
}

output "registry" {
  description = "Where deploy/docker/publish.sh pushes to"
  value       = "${google_artifact_registry_repository.images.location}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}
