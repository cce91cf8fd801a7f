variable "project" {
  description = "Google Cloud project"
  type        = string
}

variable "region" {
  description = "Region of everything; it must have the GPU"
  type        = string
  default     = "europe-west4"
}

variable "gpu_zones" {
  description = "Zones of the region that have the GPU"
  type        = list(string)
  default     = ["europe-west4-a", "europe-west4-b"]
}

variable "gpu" {
  description = "GPU of the worker nodes and a machine type that takes it"
  type        = object({ type = string, machine = string })
  default     = { type = "nvidia-l4", machine = "g2-standard-8" }
}

variable "most_gpus" {
  description = "Most GPU nodes in each zone; each has a price, and the project a quota"
  type        = number
  default     = 4
}

variable "spot" {
  description = "Whether GPU nodes may be taken away at any time, for about a third of the price; no job is lost by it"
  type        = bool
  default     = true
}

variable "host" {
  description = "Name by which clients reach the gateway"
  type        = string
}

variable "database_tier" {
  description = "Machine type of Cloud SQL"
  type        = string
  default     = "db-custom-2-7680"
}

variable "administrators" {
  description = "Networks that may reach the cluster's control plane"
  type        = list(object({ name = string, cidr = string }))
  default     = []
}

variable "keep_pictures_days" {
  description = "Days after which pictures are deleted from the bucket; 0: never. Not less than ITEMFORGE_RETAIN_REQUESTS"
  type        = number
  default     = 0
}
