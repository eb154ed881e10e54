"""From records to a batch on the device: stores, samplers, loaders, augmentation."""
