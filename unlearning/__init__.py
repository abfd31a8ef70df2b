"""The mathematics and the evidence of forgetting: plain arrays and files, no Flower, no MRI."""
