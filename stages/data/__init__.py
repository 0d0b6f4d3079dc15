"""Images and labels: what lies in the data folder, which label and split each image has, how it is decoded."""
