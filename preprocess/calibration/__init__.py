"""Calibration of full-disk images: geometry, resampling, exposure, degradation."""
