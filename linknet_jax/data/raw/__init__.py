"""Raw Visual Genome (objects.json, relationships.json, image_data.json) to VG150."""
