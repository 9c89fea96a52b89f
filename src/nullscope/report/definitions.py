"""How each number of the page is computed, in a sentence or two."""

from __future__ import annotations

DEFINITIONS: dict[str, str] = {
    "Logit": (
        "The detector's output for one image. Above 0 (strictly) the image is called fake; nothing is tuned on the test set."
    ),
    "Real accuracy (r_acc)": ("The share of reals called real; over a benchmark, the unweighted mean over its subsets."),
    "Fake accuracy (f_acc)": (
        "The share of fakes called fake, per generator; over a benchmark, the unweighted mean over its subsets."
    ),
    "Shared reals": (
        "A subset without reals of its own is compared with those of the subset that dataset.reals names, or else with all test "
        "reals of the subsets that hold only reals. In a mean over subsets they count once per subset, as in the papers."
    ),
    "Seen, unseen": (
        "A subset is seen if the training split has fakes of its generator. f_acc_seen, acc_seen, ap_seen and auroc_seen are the "
        "means over those subsets, and the same with _unseen over the others."
    ),
    "Accuracy (acc)": (
        "The share of a subset's images, reals and fakes together, that are called what they are; then the mean over subsets."
    ),
    "Average precision (ap)": (
        "The area under precision against recall as scikit-learn computes it, fake as positive, per subset; then the mean over "
        "subsets. It needs no threshold, and rises with the share of fakes."
    ),
    "AUROC (auroc)": (
        "The chance that a fake of the subset has a higher logit than one of its reals, ties counting half; then the mean over "
        "subsets. 50 % is guessing."
    ),
    "Mean of reals and fakes (mean_real_fakes)": (
        "What NS-Net and DGS-Net print as mAcc.: the plain mean of one real column and one column per generator. "
        "With many generators the reals hardly count."
    ),
    "Mean of fakes (mean_fakes)": (
        "The plain mean of the generators' columns, without the reals, as in NS-Net's table on UniversalFakeDetect."
    ),
    "Balanced (mean_balanced)": (
        "The mean over subsets of half real plus half fake accuracy: 50 % for a detector that says the same of everything."
    ),
    "Balanced accuracy, pooled (balanced_acc)": (
        "Half real plus half fake accuracy over all test images at once; large subsets weigh more."
    ),
    "Calibration error (ece)": (
        "The sigmoid of the logit is read as the probability of fake and sorted into 15 bins of equal width, over all test "
        "images at once. The error is the mean over images of the gap between a bin's mean probability and its share of fakes."
    ),
    "Fakes found at 1 % or 5 % false alarms": (
        "The largest share of fakes that any threshold finds while calling at most that share of the reals fake, over all "
        "test images at once; or (tpr_5, tpr_5_unseen) per subset, and then the mean over subsets. The threshold is the test "
        "set's own: a limit of what calibration could reach."
    ),
    "95 % interval (.._low, .._high)": (
        "Of a share of images (r_acc, f_acc, acc of a subset): Wilson's score interval. Of everything else, and of means over "
        "subsets: 1,000 resamples of the test images, drawn with replacement within every subset and kind (bootstrap, "
        "percentiles). It says what other images of the same subsets would give; nothing of another training: for that, look at "
        "the seeds. With few reals the interval at 1 % false alarms is too narrow (of 100 reals it covers 81 %, not 95)."
    ),
    "Two by two": (
        "All detectors have the same resamples, so a difference compares the same images. DeLong's test compares the AUROCs of "
        "all test images at once. McNemar's exact test: of the images that only one of two detectors calls right, does either "
        "have more than chance would give it? Holm's adjustment: if no pair differs, one of the p-values of a column falls below "
        "0.05 in one report of twenty."
    ),
    "Degradations": (
        "Applied to the whole image before patch selection; the threshold stays that of clean images. JPEG and WebP as Pillow "
        "writes them, blur a Gaussian with sigma in pixels, size by both sides, social: size x 0.75, JPEG 85, JPEG 75."
    ),
    "File bias": (
        "A small classifier sees format, size, bytes per pixel or JPEG quality of the files and no pixel, five-fold "
        "cross-validated. Above 60 % balanced accuracy, the interval above 50, the fact is biased: a detector may learn it too."
    ),
    "Published": (
        "As printed, in the papers' tables; the averages are recomputed in the package's tests, and what contradicts itself is "
        "marked ?. Their detectors were trained elsewhere: a number inside our interval is no proof, one outside no failure."
    ),
    "Over seeds, ±": (
        "The number is the mean. Of two seeds the lower and the higher stand below it. From three seeds on, ± is half the width "
        "of the 95 % interval of the mean (Student's t, n - 1 degrees of freedom). A seed draws the initial weights and the "
        "order of the training; the images are the same, so the interval says nothing of another test set."
    ),
    "Difference to the first detector": (
        "The difference to the first detector of the run at the same seed, in points; then mean and interval as above. "
        "Marked * where the interval excludes zero. Of many detectors that do not differ, one in twenty is marked all the same."
    ),
    "Cross-validated AUROC of features": (
        "A logistic regression on standardised features, trained on four fifths of the images and judged on the last fifth, five "
        "times; the mean of the five AUROCs. Both parts hold all generators."
    ),
}
CAPTIONS_ALONE = {
    "Captions alone": (
        "The same classifier on the frozen text features of BLIP's captions (the first 10,000 of each split), trained on the "
        "training split and judged on the test split. It says how much of the label the subject of a picture gives away."
    ),
}
SEMANTICS = {
    "Matched and mismatched sets": (
        "Of the test images whose features are kept. Matched: reals and fakes paired one to one so that the cosines of their "
        "captions' features are the largest in sum, and of these pairs the nearest. Mismatched: the reals lowest and the fakes "
        "highest on the first principal axis of the captions' features. Half as many of each kind as the rarer kind has."
    ),
}
SHORTCUT = {
    "Colour AUROC (colour_auroc)": (
        "Among test pictures of the same label and generator, the chance that one whose caption names a colour of the fakes "
        "scores above one with a colour of the reals, ties counting half; the mean over these groups, weighted by their pairs. "
        "50 % is blind to colour. The colour is the one that BLIP names: a caption that names none or several is left out."
    ),
    "Colour agrees, conflicts": (
        "Test pictures whose colour is one that their own label had in training, or one that the other label had; all generators "
        "at once. AUROC and balanced accuracy within each part."
    ),
}


def definitions(*, captions: bool, semantics: bool, shortcut: bool) -> dict[str, str]:
    """Return the definitions of all numbers of the page; those of a part only if the page has that part."""
    optional = ((CAPTIONS_ALONE, captions), (SEMANTICS, semantics), (SHORTCUT, shortcut))
    return DEFINITIONS | {name: words for terms, shown in optional if shown for name, words in terms.items()}
