"""Measurements. Figures are medians and ratios of one machine at one time: run them where you want to know."""
